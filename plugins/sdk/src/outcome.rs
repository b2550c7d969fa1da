//! Short ways to make the generated types.

use crate::{Denial, Fragment, HookError, Question, Reason, Verdict};

impl HookError {
    /// An error after which the same call would fail again.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), retryable: false, ext: Vec::new() }
    }
}

fn reason(rule: impl Into<String>, message: impl Into<String>) -> Reason {
    Reason { rule: rule.into(), message: message.into(), ext: Vec::new() }
}

macro_rules! outcome {
    ($hook:ident { $($patch:ident: $none:expr)? }) => {
        impl crate::$hook::Outcome {
            /// A verdict and nothing else.
            #[must_use]
            pub fn new(verdict: Verdict) -> Self {
                Self { verdict, $($patch: $none,)? context: Vec::new(), ext: Vec::new() }
            }

            /// No objection.
            #[must_use]
            pub fn pass() -> Self {
                Self::new(Verdict::Pass)
            }

            /// No objection, with a reason that people see.
            #[must_use]
            pub fn allow(rule: impl Into<String>, message: impl Into<String>) -> Self {
                Self::new(Verdict::Allow(reason(rule, message)))
            }

            /// It must not happen; the message tells the model what to do instead.
            #[must_use]
            pub fn deny(rule: impl Into<String>, message: impl Into<String>) -> Self {
                let denial = Denial { rule: rule.into(), message: message.into(), ext: Vec::new() };
                Self::new(Verdict::Deny(denial))
            }

            /// A person must decide.
            #[must_use]
            pub fn ask(rule: impl Into<String>, message: impl Into<String>) -> Self {
                let question = Question { rule: rule.into(), message: message.into(), ext: Vec::new() };
                Self::new(Verdict::Ask(question))
            }

            /// The whole turn must end.
            #[must_use]
            pub fn halt(rule: impl Into<String>, message: impl Into<String>) -> Self {
                Self::new(Verdict::Halt(reason(rule, message)))
            }

            $(
                /// The same with a change of the value.
                #[must_use]
                pub fn with_patch(mut self, patch: crate::$hook::Patch) -> Self {
                    self.$patch = Some(patch);
                    self
                }
            )?

            /// The same with something that the model shall know.
            #[must_use]
            pub fn with_context(mut self, title: impl Into<String>, text: impl Into<String>) -> Self {
                self.context.push(Fragment { title: title.into(), text: text.into(), ext: Vec::new() });
                self
            }
        }
    };
}

outcome!(session_start {});
outcome!(tool_execute_before { patch: None });
outcome!(tool_execute_after { patch: None });
outcome!(pr_create { patch: None });
