//! What can go wrong with a workspace.

use ostler_protocol::ErrorCode;
use ostler_protocol::event::CutOff;
use ostler_sandbox::client::guest::LinkLost;
use ostler_sandbox::client::{GuestError, LauncherClientError};

use crate::door::DoorError;

/// An error of a workspace operation.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The launcher could not make the sandbox.
    #[error("cannot make the sandbox")]
    Create {
        /// Why.
        #[source]
        source: LauncherClientError,
    },
    /// The launcher could not hand out a living sandbox again.
    #[error("cannot take up the sandbox again")]
    Reclaim {
        /// Why.
        #[source]
        source: LauncherClientError,
    },
    /// The launcher could not end the sandbox.
    #[error("cannot end the sandbox")]
    End {
        /// Why.
        #[source]
        source: LauncherClientError,
    },
    /// The sandbox's door could not be served.
    #[error("cannot serve the sandbox's door")]
    Door {
        /// Why.
        #[source]
        source: DoorError,
    },
    /// The guest refused or is gone.
    #[error("cannot {doing}")]
    Guest {
        /// What was asked of it.
        doing: &'static str,
        /// Why.
        #[source]
        source: GuestError,
    },
    /// The guest did not end a script of ours in time.
    #[error("cannot {doing}: the sandbox did not answer within {} s", waited.as_secs())]
    Late {
        /// What it was to do.
        doing: &'static str,
        /// How long it was given.
        waited: std::time::Duration,
    },
    /// A script of ours failed in the workspace.
    #[error("cannot {doing}: the command ended with status {status}: {output}")]
    Script {
        /// What it was to do.
        doing: &'static str,
        /// Its exit status.
        status: i32,
        /// The end of its output.
        output: String,
    },
}

impl WorkspaceError {
    /// The code under which clients see it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        ErrorCode::SandboxFailed
    }

    /// What the guest did that nothing is taken from it after, where that is the reason.
    #[must_use]
    pub fn cut_off(&self) -> Option<CutOff> {
        match self {
            Self::Guest { source, .. } => cut_off(source),
            Self::Late { .. } => Some(CutOff::Silent),
            _ => None,
        }
    }
}

/// What the guest did, where that is why something failed: what an honest one never does.
pub(super) fn cut_off(error: &GuestError) -> Option<CutOff> {
    match error {
        // An honest guest looks at what it opens first.
        GuestError::Link(LinkLost::Violation(_) | LinkLost::Superseded { .. }) | GuestError::Unreadable { .. } => {
            Some(CutOff::BrokeProtocol)
        }
        GuestError::Deadline { .. } => Some(CutOff::Silent),
        _ => None,
    }
}

/// An error and all its causes in one line, for events that people read.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
