//! A workspace's services and background commands as the session sees them: events, and what the hooks say about a start.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use ostler_protocol::event::{Reason, Verdict};
use ostler_protocol::{CallId, EventBody, TurnId};

use super::job::{Job, decided};
use super::state::Input;
use crate::plugins::{Effect, ToolBefore};
use crate::workspace::{Admission, Known, News, Overseer, Workspace, supervise};

/// Supervises a workspace until its sandbox is gone. However this ends, nobody goes on waiting for its services.
pub(super) async fn follow(workspace: Arc<Workspace>, known: Known, job: Job) {
    let watch = Arc::new(Watch { job });
    let supervised = std::panic::AssertUnwindSafe(supervise(workspace, known, Arc::<Watch>::clone(&watch)));
    if supervised.catch_unwind().await.is_err() {
        tracing::error!(session = %watch.job.session, "the supervision of its services panicked");
    }
    watch.settled().await;
}

struct Watch {
    job: Job,
}

#[async_trait]
impl Overseer for Watch {
    async fn tell(&self, news: News) -> bool {
        self.job.note(event(news)).await
    }

    /// Judged as the agent's tool `shell` with `background` is: what its rules forbid, no declaration allows.
    async fn admit(&self, service: &str, command: &str) -> Result<Admission, String> {
        let event = ToolBefore {
            scope: self.job.scope(),
            turn: TurnId::generate(),
            call: CallId::generate(),
            tool: "shell".into(),
            effect: Effect::Execute,
            arguments: serde_json::json!({ "command": command, "background": true, "name": service }),
            working_directory: ostler_sandbox::wire::guest::WORKSPACE.into(),
        };
        let decision = self.job.services.plugins.generation().tool_execute_before(event).await;
        // What they would add to the conversation is left out: it would come between a question and its answer, with every start.
        if !self.job.note(decided(&decision, None)).await {
            return Err("the session's log takes no events".into());
        }
        match (decision.verdict, decision.value.get("command").and_then(serde_json::Value::as_str)) {
            (Verdict::Pass | Verdict::Rewrite, Some(command)) => {
                Ok(Admission { command: command.to_owned(), decision: decision.id })
            }
            (Verdict::Pass | Verdict::Rewrite, None) => Err("a plugin took its command away".into()),
            _ => Err(denial(&decision.reasons)),
        }
    }

    async fn settled(&self) {
        self.job.report(Input::ServicesSettled).await;
    }
}

fn denial(reasons: &[Reason]) -> String {
    let reasons: Vec<String> = reasons.iter().map(|reason| format!("{} ({})", reason.text, reason.plugin)).collect();
    if reasons.is_empty() {
        "its start was denied".into()
    } else {
        format!("its start was denied: {}", reasons.join("; "))
    }
}

fn event(news: News) -> EventBody {
    match news {
        News::Service { name, state, why, output, decision } => {
            EventBody::ServiceChanged { service: name, state, why, output, decision }
        }
        News::Refused { reason } => EventBody::ServicesRefused { reason },
        News::ProcessEnded { name, run, exit_status, output } => {
            EventBody::ProcessEnded { process: name, run, exit_status, output }
        }
        News::TooMuch => {
            EventBody::Notice { text: "how more background commands end stands in the list of commands only".into() }
        }
    }
}
