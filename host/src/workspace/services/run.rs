//! The task that supervises a workspace's services and background commands: it performs what the machine says and tells the
//! machine what came of it.
//!
//! ```text
//!  exits of the guest ─┐
//!  wishes of people ───┼─► Input ─► machine ─► effects: start, probe, pause, stop, tell
//!  probes, pauses ─────┘
//! ```
//!
//! Effects are performed in order, and an event is durable before what it tells is done. Ends with the link to the sandbox.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ostler_protocol::event::Person;
use ostler_protocol::processes::ServiceState;
use ostler_sandbox::client::GuestError;
use ostler_sandbox::wire::FailureKind;
use ostler_sandbox::wire::guest::{self, Exec, Exit, ExitCause, Overflow, Stdio, WORKSPACE};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::declaration::{self, FILE, MAX_FILE, MAX_STOP_GRACE, Service};
use super::machine::{Call, Effect, End, Found, Id, Input, Machine, MayHelp};
use super::{Admission, Asked, Known, News, Overseer, Request, ServiceError, Wish, probe};
use crate::workspace::background::{Background, TAIL, label, service_call};
use crate::workspace::hands::environment;
use crate::workspace::{Workspace, chain};

/// Longest that somebody waits for a service that they want stopped or started.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(MAX_STOP_GRACE.as_secs() + 15);

/// Ends of background commands that one sandbox may add to the log of its session.
const MOST: usize = 500;

/// Bytes and lines of output that are told of a command that ended.
const TOLD: u32 = 2048;
const TOLD_LINES: usize = 10;

/// Pause between two looks at a service that was sent a signal.
const LOOK: Duration = Duration::from_millis(20);

/// Time for what is left of a service after the signal of its choice.
const LAST_GRACE: Duration = Duration::from_millis(500);

/// How often a guest is asked that is busy, and the pause between.
const TRIES: u32 = 20;
const BUSY: Duration = Duration::from_millis(500);

/// There is nothing to supervise any more: the link to the sandbox is lost, or nothing is answered over it.
struct Lost;

fn is_lost(error: &GuestError) -> bool {
    matches!(error, GuestError::Link(_) | GuestError::Replaced { .. })
}

/// Asks the guest, again where it is busy.
async fn insist<T, F: Future<Output = Result<T, GuestError>>>(ask: impl Fn() -> F) -> Result<T, Lost> {
    for tried in 1.. {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if is_lost(&error) => {
                tracing::debug!(error = %chain(&error), "the services are not supervised any more");
                break;
            }
            Err(error) if tried >= TRIES => {
                tracing::warn!(error = %chain(&error), "the services are not supervised any more");
                break;
            }
            Err(_) => tokio::time::sleep(BUSY).await,
        }
    }
    Err(Lost)
}

/// Supervises until the sandbox is gone or everything was stopped. Does nothing where the workspace is supervised already.
pub async fn supervise(workspace: Arc<Workspace>, known: Known, overseer: Arc<dyn Overseer>) {
    let Some(requests) = workspace.services.take_inbox() else { return };
    let author = known.author.clone();
    let mut run = Run {
        exits: workspace.guest.exits(),
        workspace,
        overseer,
        author,
        machine: Machine::new(Vec::new()),
        told: known.ended.clone(),
        mute: false,
        tasks: JoinSet::new(),
        probes: Vec::new(),
        waiting: Vec::new(),
        over: None,
    };
    if run.run(&known, requests).await.is_err() {
        // Where the link is lost, whoever ends the sandbox says why. Nobody knows how they are any more.
        run.workspace.services.seen.send_replace(Vec::new());
    }
}

/// Hears what came of a wish.
type Waiter = oneshot::Sender<Result<(), ServiceError>>;

struct Run {
    workspace: Arc<Workspace>,
    overseer: Arc<dyn Overseer>,
    author: Person,
    machine: Machine,
    exits: tokio::sync::watch::Receiver<u64>,
    /// Background commands whose ends were told.
    told: BTreeSet<(String, String)>,
    /// Nobody takes news any more: the host ends.
    mute: bool,
    /// Probes, pauses and stops under way.
    tasks: JoinSet<Option<Input>>,
    /// Those of them that are probes.
    probes: Vec<(Id, u64, AbortHandle)>,
    /// Who waits for a service to have ended or started.
    waiting: Vec<(Id, Wish, Waiter)>,
    /// Who waits for the end of all.
    over: Option<oneshot::Sender<()>>,
}

impl Run {
    async fn run(&mut self, known: &Known, mut requests: mpsc::Receiver<Request>) -> Result<(), Lost> {
        let services = self.declared().await?;
        let within = services.iter().map(|service| service.ready_within).max().unwrap_or_default();
        self.machine = Machine::new(services);
        self.publish();
        let found = self.found(known).await?;
        self.take(Input::Begin(found)).await?;
        self.look_at_commands().await?;
        let wait_over = tokio::time::sleep_until(Instant::now() + within);
        tokio::pin!(wait_over);
        let mut is_waited_for = true;
        loop {
            tokio::select! {
                changed = self.exits.changed() => {
                    changed.map_err(|_| Lost)?;
                    self.look().await?;
                    self.look_at_commands().await?;
                }
                request = requests.recv() => match request {
                    Some(Request::Asked(asked)) => self.asked(asked).await?,
                    Some(Request::End(done)) => {
                        self.over = Some(done);
                        self.take(Input::EndAll).await?;
                    }
                    None => return Ok(()),
                },
                Some(ended) = self.tasks.join_next() => {
                    if let Ok(Some(input)) = ended {
                        self.take(input).await?;
                    }
                }
                () = &mut wait_over, if is_waited_for => {
                    is_waited_for = false;
                    self.take(Input::WaitOver).await?;
                }
            }
        }
    }

    /// What the repository declares; nothing where there is no file, or one that cannot be used, which is told.
    async fn declared(&mut self) -> Result<Vec<Service>, Lost> {
        let reason = match self.workspace.guest.read_file(FILE, MAX_FILE + 1).await {
            Ok(content) => match declaration::parse(&content.bytes) {
                Ok(services) => return Ok(services),
                Err(error) => error.to_string(),
            },
            Err(GuestError::Refused { failure, .. }) if failure.kind == FailureKind::NotFound => return Ok(Vec::new()),
            Err(error) if is_lost(&error) => return Err(Lost),
            Err(error) => format!("{FILE} cannot be read: {}; make it a regular file of the repository", chain(&error)),
        };
        self.tell(News::Refused { reason }).await;
        Ok(Vec::new())
    }

    /// What is known of each service; what runs and is not declared is ended.
    async fn found(&mut self, known: &Known) -> Result<Vec<Found>, Lost> {
        let mut found = Vec::new();
        let listed = insist(|| self.workspace.service_starts()).await?;
        for Background { name, row, .. } in &listed {
            if self.machine.id(name).is_none() && row.exit.is_none() {
                insist(|| self.workspace.guest.stop(&row.call, MAX_STOP_GRACE)).await?;
                let why = Some(format!("{FILE} does not declare it any more"));
                let name = name.clone();
                let state = ServiceState::Stopped;
                self.tell(News::Service { name, state, why, output: None, decision: None }).await;
            }
        }
        let services: Vec<String> = self.machine.statuses().into_iter().map(|status| status.name).collect();
        for name in services {
            let row = listed.iter().find(|found| found.name == name).map(|found| found.row.clone());
            let call = match row {
                None => Call::None,
                Some(guest::Call { exit: None, .. }) => Call::Runs,
                Some(row @ guest::Call { exit: Some(exit), .. }) => Call::Ended(self.end(&row, exit).await?),
            };
            found.push(Found { told: known.services.get(&name).copied(), call });
        }
        Ok(found)
    }

    /// Takes an input and everything that follows from it at once.
    async fn take(&mut self, input: Input) -> Result<(), Lost> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let effects = self.machine.step(input);
            let machine = &self.machine;
            // Nobody looks whether one is ready that is not being started any more.
            self.probes
                .extract_if(.., |(id, run, _)| !machine.is_starting(*id, *run))
                .for_each(|(.., probe)| probe.abort());
            self.publish();
            for effect in effects {
                inputs.extend(self.perform(effect).await?);
            }
        }
        let machine = &self.machine;
        let (waiting, done) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(id, ..)| machine.is_stopping(*id));
        self.waiting = waiting;
        for (id, wish, waiter) in done {
            let answer = match self.machine.why_not_started(id) {
                Some(why) if wish == Wish::Restart => {
                    Err(ServiceError::NotStarted { name: self.machine.service(id).name.clone(), why })
                }
                _ => Ok(()),
            };
            // Whoever asked may have gone.
            let _ = waiter.send(answer);
        }
        Ok(())
    }

    fn publish(&self) {
        let statuses = self.machine.statuses();
        self.workspace.services.seen.send_if_modified(|seen| std::mem::replace(seen, statuses.clone()) != statuses);
    }

    async fn perform(&mut self, effect: Effect) -> Result<Option<Input>, Lost> {
        match effect {
            Effect::Start { id, run, why } => return self.start(id, run, why).await.map(Some),
            Effect::Probe { id, run } => {
                let (workspace, author) = (Arc::clone(&self.workspace), self.author.clone());
                let service = self.machine.service(id).clone();
                let probe = self.tasks.spawn(async move {
                    Some(match probe::wait(&workspace, &service, &author).await {
                        Ok(()) => Input::Ready { id, run },
                        Err(why) => Input::Late { id, run, why },
                    })
                });
                self.probes.push((id, run, probe));
            }
            Effect::Stop { id } => {
                let (workspace, service) = (Arc::clone(&self.workspace), self.machine.service(id).clone());
                self.tasks.spawn(async move {
                    // Its end is told by the guest.
                    let _ = insist(|| stop(&workspace, &service)).await;
                    None
                });
            }
            Effect::Pause { id, run, time } => {
                self.tasks.spawn(async move {
                    tokio::time::sleep(time).await;
                    Some(Input::PauseOver { id, run })
                });
            }
            Effect::Tell { id, state, why, output } => {
                let name = self.machine.service(id).name.clone();
                self.tell(News::Service { name, state, why, output, decision: None }).await;
            }
            Effect::Settled => self.overseer.settled().await,
            Effect::Over => {
                if let Some(over) = self.over.take() {
                    let _ = over.send(());
                }
            }
        }
        Ok(None)
    }

    async fn tell(&mut self, news: News) {
        self.mute = self.mute || !self.overseer.tell(news).await;
    }

    /// Starts a service: decided, told, done.
    async fn start(&mut self, id: Id, run: u64, why: Option<String>) -> Result<Input, Lost> {
        let service = self.machine.service(id).clone();
        let not = |why: String, may_help| Input::NotStarted { id, run, why, may_help };
        let Admission { command, decision } = match self.overseer.admit(&service.name, &service.command).await {
            Ok(admission) => admission,
            Err(why) => return Ok(not(why, MayHelp::No)),
        };
        let (name, state) = (service.name.clone(), ServiceState::Starting);
        self.tell(News::Service { name, state, why, output: None, decision: Some(decision) }).await;
        if self.mute {
            return Ok(not("the host ends".into(), MayHelp::No));
        }
        let call = service_call(&service.name);
        let exec = Exec {
            call: call.clone(),
            argv: vec!["bash".into(), "-c".into(), command],
            env: environment_of(&service, &self.author),
            cwd: WORKSPACE.into(),
            timeout_ms: 0,
            output_limit: TAIL,
            overflow: Overflow::DropHead,
            stdio: Stdio::Merged,
            label: label(&service.command),
        };
        // What an earlier start left behind would be in the way of this one. There may be none.
        if self.workspace.guest.stop(&call, Duration::ZERO).await.is_ok() {
            let _ = self.workspace.guest.forget(&call).await;
        }
        match self.workspace.guest.start(exec).await {
            Ok(()) => Ok(Input::Started { id, run }),
            Err(error) if is_lost(&error) => Err(Lost),
            Err(error) => Ok(not(format!("it could not be started: {}", chain(&error)), MayHelp::Yes)),
        }
    }

    async fn asked(&mut self, asked: Asked) -> Result<(), Lost> {
        let Asked { name, wish, by, done } = asked;
        let Some(id) = self.machine.id(&name) else {
            let _ = done.send(Err(ServiceError::Unknown(name)));
            return Ok(());
        };
        self.waiting.push((id, wish, done));
        self.take(Input::Asked { id, wish, by }).await
    }

    /// Finds the services that ended.
    async fn look(&mut self) -> Result<(), Lost> {
        let running: Vec<(Id, u64)> = self.machine.running().collect();
        if running.is_empty() {
            return Ok(());
        }
        let listed = insist(|| self.workspace.service_starts()).await?;
        for (id, run) in running {
            let name = &self.machine.service(id).name;
            let end = match listed.iter().find(|found| found.name == *name).map(|found| found.row.clone()) {
                Some(guest::Call { exit: None, .. }) => continue,
                Some(row @ guest::Call { exit: Some(exit), .. }) => self.end(&row, exit).await?,
                None => End { status: UNKNOWN, stopped: false, ran: Duration::ZERO, output: String::new() },
            };
            self.take(Input::Ended { id, run, end }).await?;
        }
        Ok(())
    }

    /// Tells the ends of background commands that nobody was told of.
    async fn look_at_commands(&mut self) -> Result<(), Lost> {
        for found in insist(|| self.workspace.background()).await? {
            let Some(exit) = found.row.exit.filter(|exit| exit.cause != ExitCause::Stopped) else { continue };
            let key = (found.name, found.run);
            if self.told.len() > MOST || self.told.contains(&key) {
                continue;
            }
            let news = if self.told.len() == MOST {
                News::TooMuch
            } else {
                let output = self.output(&found.row).await?;
                let (name, run) = key.clone();
                News::ProcessEnded { name, run, exit_status: exit.status, output }
            };
            self.told.insert(key);
            self.tell(news).await;
        }
        Ok(())
    }

    async fn end(&self, row: &guest::Call, exit: Exit) -> Result<End, Lost> {
        let stopped = exit.cause == ExitCause::Stopped;
        let ran = Duration::from_micros(exit.wall_us);
        Ok(End { status: exit.status, stopped, ran, output: self.output(row).await? })
    }

    /// The last lines of what a command wrote; nothing where that is not kept any more.
    async fn output(&self, row: &guest::Call) -> Result<String, Lost> {
        let from = row.output.saturating_sub(TOLD.into());
        let read = || async {
            match self.workspace.guest.read_output(&row.call, from, TOLD).await {
                Err(GuestError::Refused { .. }) => Ok(None),
                read => read.map(Some),
            }
        };
        let piece = insist(read).await?;
        Ok(piece.map_or_else(String::new, |piece| last_lines(&piece.bytes, piece.offset > 0)))
    }
}

/// Status of a service of which the sandbox knows nothing any more.
const UNKNOWN: i32 = -1;

/// A status in words that follow "ended".
pub(super) fn how(status: i32) -> String {
    match status {
        UNKNOWN => "in a way that is not known".to_owned(),
        129..=192 => format!("with status {status} (signal {})", status - 128),
        status => format!("with status {status}"),
    }
}

/// The last whole lines; where the beginning is cut, the first line is half of one.
fn last_lines(bytes: &[u8], cut: bool) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = match text.split_once('\n') {
        Some((_, rest)) if cut && !rest.is_empty() => rest,
        _ => &text,
    };
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TOLD_LINES)..].join("\n")
}

/// The whole environment of a service's commands.
pub(super) fn environment_of(service: &Service, author: &Person) -> Vec<(String, String)> {
    let mut variables = environment(author);
    for (name, value) in &service.environment {
        variables.retain(|(known, _)| known != name);
        variables.push((name.clone(), value.clone()));
    }
    variables
}

/// Asks a service to end in the way that it chose, and ends it by force after its time of grace.
async fn stop(workspace: &Workspace, service: &Service) -> Result<(), GuestError> {
    const TERMINATE: i32 = 15;
    let call = service_call(&service.name);
    if service.stop_signal == TERMINATE {
        return workspace.guest.stop(&call, service.stop_grace).await;
    }
    let ends_by_itself = async {
        workspace.guest.signal(&call, service.stop_signal).await?;
        while workspace.guest.status(&call).await?.exit.is_none() {
            tokio::time::sleep(LOOK).await;
        }
        Ok::<_, GuestError>(())
    };
    let _ = tokio::time::timeout(service.stop_grace, ends_by_itself).await;
    // Whatever came of it, and also what its main process left behind.
    workspace.guest.stop(&call, LAST_GRACE).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_whole() {
        assert_eq!(last_lines(b"", false), "");
        assert_eq!(last_lines(b"one\ntwo\n", false), "one\ntwo");
        assert_eq!(last_lines(b"ne\ntwo\nthree", true), "two\nthree");
        assert_eq!(last_lines(b"a line without an end", true), "a line without an end");
        let many: String = (0..30).map(|number| format!("{number}\n")).collect();
        assert_eq!(last_lines(many.as_bytes(), false).lines().next(), Some("20"));
    }

    #[test]
    fn an_end_is_told_with_its_signal() {
        let told = [0, 3, 137, UNKNOWN].map(how);
        assert_eq!(
            told,
            ["with status 0", "with status 3", "with status 137 (signal 9)", "in a way that is not known"]
        );
    }
}
