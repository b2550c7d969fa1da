//! Runs the probe: this program once more, in a process of its own, and reads what it says until the time is over.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ostler_sandbox::probe::{Attempt, Outcome, Plan};
use ostler_sandbox::standing;
use ostler_sandbox::wire::FailureKind;
use ostler_sandbox::wire::launcher::Limits;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::{Instant, timeout_at};

use super::context::{Attempts, Looker, Tried};

/// The hidden verb.
pub const VERB: &str = "internal-probe";

/// Time for all attempts; each has a limit of its own within the probe.
const PATIENCE: Duration = Duration::from_secs(12);

/// Limits with which a group is tried where the configuration gives none.
const ORDINARY: Limits = Limits {
    memory: 1 << 30,
    pids: 1024,
    cpu_millis: 1000,
    cpu_weight: 100,
    io_weight: 100,
    disk: 1 << 30,
    files: 100_000,
};

pub(super) async fn examine(program: &Path, place: PathBuf, limits: Option<Limits>, looker: Looker) -> Attempts {
    // Without root it is tried in a user namespace, as a host would.
    let refused = match looker {
        Looker::Root => None,
        Looker::Another => standing::can_enter().err(),
    };
    let may = |attempt: &Attempt| match looker {
        Looker::Root => true,
        // Groups are made room in by the host, which that is done for once.
        Looker::Another => *attempt != Attempt::Limits && (refused.is_none() || !attempt.needs_root()),
    };
    let why_not = refused.as_ref().map(|refused| format!("not tried without root: {refused}")).unwrap_or_default();
    let (attempts, left): (Vec<Attempt>, Vec<Attempt>) = Attempt::ALL.into_iter().partition(may);
    let mut found: HashMap<_, _> = left.into_iter().map(|attempt| (attempt, Tried::Not(why_not.clone()))).collect();
    let plan = Plan { attempts: attempts.clone(), place, limits: limits.unwrap_or(ORDINARY) };
    let why = match run(program, &plan, &mut found).await {
        Ok(()) => "the probe ended without a word about it".to_owned(),
        Err(error) => format!("the probe could not be run: {error}"),
    };
    for attempt in attempts {
        found.entry(attempt).or_insert_with(|| Tried::Not(why.clone()));
    }
    Attempts(found)
}

async fn run(program: &Path, plan: &Plan, found: &mut HashMap<Attempt, Tried>) -> std::io::Result<()> {
    let mut command = Command::new(program);
    command.arg(VERB).arg(serde_json::to_string(plan)?);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let Some(output) = child.stdout.take() else { return Ok(()) };
    let (mut lines, until) = (BufReader::new(output).lines(), Instant::now() + PATIENCE);
    while let Ok(line) = timeout_at(until, lines.next_line()).await {
        let Some(line) = line? else { break };
        let Outcome { attempt, refused } = serde_json::from_str(&line)?;
        let tried = match refused {
            None => Tried::Works,
            Some(failure) if failure.kind == FailureKind::Outside => Tried::Not(failure.to_string()),
            Some(failure) => Tried::Refused(failure),
        };
        found.insert(attempt, tried);
    }
    // It has said everything or is over its time: then it is killed, with what it started.
    timeout_at(until, child.wait()).await.map_or(Ok(()), |ended| ended.map(drop))
}
