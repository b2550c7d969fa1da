//! One decision: everybody who takes part in a hook is asked, and their answers become one.
//!
//! ```text
//!  value ─► mutate: one after the other, priority down, then id ─► freeze, digest ─► validate: all at once ─► merge
//!             │ each sees what the ones before made of the value      │ a change is refused
//!             └ a failure means what the hook (or the manifest) says ─┘
//! ```
//! A decision is made even where nobody takes part: every effect has one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use ostler_protocol::DecisionId;
use ostler_protocol::event::{Reason, Verdict};

use super::bindings::types;
use super::describe;
use super::engine::{CallError, GateEngine};
use super::hook::{Failure, Phase};
use super::hooks::{Asked, Outcome, Subject};
use super::loader::Plugin;
use super::manifest::Registration;
use super::merge::{Answer, HOST, merge, without_approver};
use super::value::{cut, digest};

/// Wall time of a whole chain; plugins that have not been asked by then count as out of time.
const CHAIN_BUDGET: Duration = Duration::from_secs(4);
/// Most bytes of a reason.
const MAX_REASON: usize = 4 * 1024;
/// Most bytes of a context fragment.
const MAX_FRAGMENT: usize = 32 * 1024;
/// Most context fragments of one plugin for one event.
const MAX_FRAGMENTS: usize = 16;

/// What the hooks decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<T> {
    /// Its name; the effect carries the same one.
    pub id: DecisionId,
    /// The hook, such as `tool.execute.before`.
    pub hook: &'static str,
    /// `Pass` or `Rewrite`: go on with `value`. `Deny`: do not. `Halt`: do not, and end the turn. The other verdicts do
    /// not occur while no person can be asked: they are denied, with a reason that says so.
    pub verdict: Verdict,
    /// Why, the strongest first, with what failed or was skipped.
    pub reasons: Vec<Reason>,
    /// The value after all changes. Where it was denied: what would have been, and for `tool.execute.after` a note in
    /// place of the output.
    pub value: T,
    /// `sha256:` and 64 hexadecimal digits of the canonical text of `value`.
    pub digest: String,
    /// What the model shall know, in order.
    pub context: Vec<Fragment>,
    /// Wall time of the decision.
    pub took: Duration,
}

impl<T> Decision<T> {
    /// Whether the effect may happen.
    #[must_use]
    pub fn allows(&self) -> bool {
        matches!(self.verdict, Verdict::Pass | Verdict::Rewrite)
    }

    /// The strongest reason with the name of its plugin, such as `policy: no-force-push: …`; empty where none was given.
    #[must_use]
    pub fn why(&self) -> String {
        self.reasons.first().map(|reason| format!("{}: {}", reason.plugin, reason.text)).unwrap_or_default()
    }
}

/// Something that a plugin wants the model to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Id of the plugin, with the title it gave: `policy: House rules`.
    pub source: String,
    /// At most 32 KiB.
    pub text: String,
}

/// Asks everybody who takes part in the hook of `subject`.
pub(super) async fn decide<S: Subject>(
    engine: Option<&Arc<GateEngine>>,
    plugins: &[Arc<Plugin>],
    subject: S,
) -> Decision<S::Value> {
    let mut chain = Chain::<S>::new(subject);
    if let Err(error) = S::check(&chain.value) {
        chain.answers.push(Answer {
            rank: 0,
            plugin: HOST.to_owned(),
            verdict: Verdict::Deny,
            reason: Some(error.to_string()),
        });
    } else if let Some(engine) = engine {
        for part in parts::<S>(engine, plugins, Phase::Mutate) {
            let heard = chain.ask(&part).await;
            chain.hear_mutator(&part, heard);
        }
        // From here on the value does not change: validators see what really takes effect.
        let validators = parts::<S>(engine, plugins, Phase::Validate);
        let heard = join_all(validators.iter().map(|part| chain.ask(part))).await;
        for (part, heard) in validators.iter().zip(heard) {
            chain.hear_validator(part, heard);
        }
    }
    chain.finish()
}

/// One plugin's part in a hook.
struct Part<'a, S: Subject> {
    engine: &'a Arc<GateEngine>,
    plugin: &'a Plugin,
    indices: &'a S::Indices,
    registration: &'a Registration,
}

/// Who takes part in one phase, in order.
fn parts<'a, S: Subject>(engine: &'a Arc<GateEngine>, plugins: &'a [Arc<Plugin>], phase: Phase) -> Vec<Part<'a, S>> {
    let mut parts: Vec<_> = plugins
        .iter()
        .filter_map(|plugin| {
            let registration =
                plugin.hooks.iter().find(|registration| registration.hook == S::HOOK && registration.phase == phase)?;
            Some(Part { engine, plugin, indices: S::indices(&plugin.exports)?, registration })
        })
        .collect();
    parts.sort_by(|a, b| {
        b.registration.priority.cmp(&a.registration.priority).then_with(|| a.plugin.guest.id.cmp(&b.plugin.guest.id))
    });
    parts
}

/// A decision in the making.
struct Chain<S: Subject> {
    id: DecisionId,
    began: Instant,
    subject: Arc<S>,
    value: S::Value,
    answers: Vec<Answer>,
    context: Vec<Fragment>,
}

impl<S: Subject> Chain<S> {
    fn new(subject: S) -> Self {
        let value = subject.value();
        Self {
            id: DecisionId::generate(),
            began: Instant::now(),
            subject: Arc::new(subject),
            value,
            answers: Vec::new(),
            context: Vec::new(),
        }
    }

    async fn ask(&self, part: &Part<'_, S>) -> Result<Outcome<S::Patch>, CallError> {
        let left = CHAIN_BUDGET.saturating_sub(self.began.elapsed());
        let budget = S::HOOK.budget().min(left);
        if budget.is_zero() {
            return Err(CallError::TimedOut { budget });
        }
        let subject = Arc::clone(&self.subject);
        let indices = part.indices.clone();
        let asked = Asked { decision: self.id, phase: part.registration.phase, value: self.value.clone() };
        let answer = part
            .engine
            .run(part.plugin.guest.clone(), budget, async move |store, instance| {
                subject.ask(store, instance, &indices, &asked).await
            })
            .await?;
        answer.map_err(|error| CallError::Reported { message: cut(&error.message, MAX_REASON).to_owned() })
    }

    fn hear_mutator(&mut self, part: &Part<'_, S>, heard: Result<Outcome<S::Patch>, CallError>) {
        let Outcome { verdict, patch, context } = match heard {
            Ok(outcome) => outcome,
            Err(error) => return self.failed(part, &error),
        };
        let (mut verdict, mut reason) = translate(verdict);
        // What must not happen is not changed any more: people see what was objected to.
        if let Some(patch) = patch.filter(|_| verdict < Verdict::Deny) {
            match S::patched(&self.value, patch) {
                Ok(value) if value == self.value => {}
                Ok(value) => {
                    self.value = value;
                    verdict = verdict.max(Verdict::Rewrite);
                    reason = reason.or_else(|| Some("changed it".to_owned()));
                }
                Err(error) => self.failed(part, &CallError::BadPatch { reason: describe(&error) }),
            }
        }
        self.answered(part, verdict, reason, context);
    }

    fn hear_validator(&mut self, part: &Part<'_, S>, heard: Result<Outcome<S::Patch>, CallError>) {
        match heard {
            Ok(Outcome { verdict, patch, context }) => {
                if patch.is_some() {
                    self.failed(part, &CallError::PatchInValidate);
                }
                let (verdict, reason) = translate(verdict);
                self.answered(part, verdict, reason, context);
            }
            Err(error) => self.failed(part, &error),
        }
    }

    fn answered(
        &mut self,
        part: &Part<'_, S>,
        verdict: Verdict,
        reason: Option<String>,
        context: Vec<types::Fragment>,
    ) {
        let plugin = part.plugin.guest.id.to_string();
        self.context.extend(context.into_iter().take(MAX_FRAGMENTS).map(|fragment| fragment_of(&plugin, &fragment)));
        self.answers.push(Answer { rank: self.answers.len(), plugin, verdict, reason });
    }

    fn failed(&mut self, part: &Part<'_, S>, error: &CallError) {
        let Registration { hook, phase, failure, .. } = *part.registration;
        let plugin = part.plugin.guest.id.to_string();
        tracing::warn!(%hook, %phase, plugin, decision = %self.id, %error, %failure, "a plugin failed");
        let (verdict, what) = match failure {
            Failure::Skip => (Verdict::Pass, "failed and was skipped"),
            Failure::Hold => (Verdict::Ask, "failed, so a person must decide"),
            Failure::Closed => (Verdict::Deny, "failed, which denies this"),
        };
        let reason = Some(format!("{what}: {error}"));
        self.answers.push(Answer { rank: self.answers.len(), plugin, verdict, reason });
    }

    fn finish(self) -> Decision<S::Value> {
        let merged = without_approver(merge(self.answers));
        let mut decision = Decision {
            id: self.id,
            hook: S::HOOK.name(),
            verdict: merged.verdict,
            reasons: merged.reasons,
            value: self.value,
            digest: String::new(),
            context: self.context,
            took: Duration::ZERO,
        };
        if !decision.allows() {
            decision.value = S::withheld(decision.value.clone(), &decision.why());
        }
        decision.digest = digest(&S::canonical(&decision.value));
        decision.took = self.began.elapsed();
        decision
    }
}

/// A plugin's verdict in the host's words. What the host does not know, a person must decide: it is never a pass.
fn translate(verdict: types::Verdict) -> (Verdict, Option<String>) {
    let text = |rule: &str, message: &str| {
        let text = if rule.is_empty() { message.to_owned() } else { format!("{rule}: {message}") };
        Some(cut(&text, MAX_REASON).to_owned())
    };
    match verdict {
        types::Verdict::Pass => (Verdict::Pass, None),
        types::Verdict::Allow(reason) => (Verdict::Pass, text(&reason.rule, &reason.message)),
        types::Verdict::Deny(denial) => (Verdict::Deny, text(&denial.rule, &denial.message)),
        types::Verdict::Ask(question) => (Verdict::Ask, text(&question.rule, &question.message)),
        types::Verdict::Defer(until) => (Verdict::Defer, text(&until.rule, &until.message)),
        types::Verdict::Halt(reason) => (Verdict::Halt, text(&reason.rule, &reason.message)),
        types::Verdict::Other(kind) => {
            (Verdict::Ask, text("", &format!("answered `{}`, which this host does not know", cut(&kind, 100))))
        }
    }
}

fn fragment_of(plugin: &str, fragment: &types::Fragment) -> Fragment {
    let title = cut(fragment.title.trim(), 200);
    let source = if title.is_empty() { plugin.to_owned() } else { format!("{plugin}: {title}") };
    let kept = cut(&fragment.text, MAX_FRAGMENT);
    let text = if kept.len() < fragment.text.len() { format!("{kept}\n[cut by the host]") } else { kept.to_owned() };
    Fragment { source, text }
}
