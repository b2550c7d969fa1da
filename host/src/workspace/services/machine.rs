//! The pure core of the supervision: `(State, Input) -> Vec<Effect>`. No clock, no guest, no chance.
//!
//! ```text
//!  Waiting ──those before it are ready──► Starting ──probe──► Ready
//!     ▲                                      │ ended, late       │ ended
//!     │ asked                                ▼                   ▼
//!  Failed, Ended, Stopped ◄──the rule says no── Restarting ◄── (rule says again: pause, then Starting)
//!     ▲
//!     └── Stopping ◄── asked, too late to be ready, the end of all
//! ```
//!
//! Each start has a number; what comes of an earlier one is dropped. A service that fails again and again is given up after
//! [`MAX_RESTARTS`] starts in a row, one that was ready for [`STEADY`] begins to count anew.

use std::time::Duration;

use ostler_protocol::processes::ServiceState;

use super::declaration::{Restart, Service};
use super::{ServiceStatus, Wish};

/// Times in a row that a service is started again by itself.
pub(super) const MAX_RESTARTS: u32 = 5;

/// Failures in a row after which nobody waits for a service any more, though it is started again.
pub(super) const HOPELESS: u32 = 3;

/// The first pause before a service is started again; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Time after which a service that ran counts as one that works.
pub(super) const STEADY: Duration = Duration::from_secs(60);

/// Characters of a command line that are shown.
const COMMAND: usize = 200;

/// A service by its place in the order.
pub(super) type Id = usize;

/// What happens to the services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// The supervision begins; what was found of each service.
    Begin(Vec<Found>),
    /// A start came about.
    Started { id: Id, run: u64 },
    /// A start did not.
    NotStarted { id: Id, run: u64, why: String, may_help: MayHelp },
    /// The service is ready.
    Ready { id: Id, run: u64 },
    /// It was not ready in time.
    Late { id: Id, run: u64, why: String },
    /// It ended.
    Ended { id: Id, run: u64, end: End },
    /// The pause before another start is over.
    PauseOver { id: Id, run: u64 },
    /// Somebody wants something.
    Asked { id: Id, wish: Wish, by: String },
    /// Nobody waits for the services any longer.
    WaitOver,
    /// Everything is to be stopped.
    EndAll,
}

/// Whether trying again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MayHelp {
    Yes,
    No,
}

/// How a service ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Exit status, 128 and the signal where one ended it.
    pub(super) status: i32,
    /// Whether it was stopped.
    pub(super) stopped: bool,
    /// Time that it ran.
    pub(super) ran: Duration,
    /// The last of what it wrote.
    pub(super) output: String,
}

/// What was found of a service when the supervision began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The state that was told last.
    pub(super) told: Option<ServiceState>,
    /// What the sandbox knows of its last start.
    pub(super) call: Call,
}

/// What the sandbox knows of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    None,
    Runs,
    Ended(End),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Ask the hooks, tell, and start it.
    Start { id: Id, run: u64, why: Option<String> },
    /// Find out when it is ready.
    Probe { id: Id, run: u64 },
    /// End it.
    Stop { id: Id },
    /// Report [`Input::PauseOver`] after a time.
    Pause { id: Id, run: u64, time: Duration },
    /// Make it known that the state is another.
    Tell { id: Id, state: ServiceState, why: Option<String>, output: Option<String> },
    /// Nobody need wait for the services any more.
    Settled,
    /// Everything is stopped.
    Over,
}

/// What becomes of a service that is being stopped, once it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Then {
    /// It stays so, as somebody asked.
    Stay(String),
    /// It is started, as somebody asked.
    Again(String),
    /// It counts as failed.
    Fail(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Starting,
    Ready,
    Stopping(Then),
    Restarting,
    Failed,
    Ended,
    Stopped,
}

impl Phase {
    fn state(&self) -> ServiceState {
        match self {
            Self::Waiting => ServiceState::Waiting,
            Self::Starting => ServiceState::Starting,
            Self::Ready => ServiceState::Ready,
            Self::Stopping(_) => ServiceState::Stopping,
            Self::Restarting => ServiceState::Restarting,
            Self::Failed => ServiceState::Failed,
            Self::Ended => ServiceState::Ended,
            Self::Stopped => ServiceState::Stopped,
        }
    }

    fn runs(&self) -> bool {
        matches!(self, Self::Starting | Self::Ready | Self::Stopping(_))
    }
}

struct Unit {
    service: Service,
    phase: Phase,
    run: u64,
    /// Starts in a row that failed.
    failures: u32,
    restarts: u32,
    why: Option<String>,
}

/// The services of one sandbox.
pub(super) struct Machine {
    units: Vec<Unit>,
    waited_for: bool,
    ending: bool,
}

impl Machine {
    /// Of services in an order in which each follows those that it starts after.
    pub(super) fn new(services: Vec<Service>) -> Self {
        let unit = |service| Unit { service, phase: Phase::Waiting, run: 0, failures: 0, restarts: 0, why: None };
        Self { units: services.into_iter().map(unit).collect(), waited_for: true, ending: false }
    }

    pub(super) fn service(&self, id: Id) -> &Service {
        &self.units[id].service
    }

    pub(super) fn id(&self, name: &str) -> Option<Id> {
        self.units.iter().position(|unit| unit.service.name == name)
    }

    /// Services that run as far as is known, with the number of their start.
    pub(super) fn running(&self) -> impl Iterator<Item = (Id, u64)> {
        self.units.iter().enumerate().filter(|(_, unit)| unit.phase.runs()).map(|(id, unit)| (id, unit.run))
    }

    pub(super) fn is_stopping(&self, id: Id) -> bool {
        matches!(self.units[id].phase, Phase::Stopping(_))
    }

    /// Whether this start of it is still under way.
    pub(super) fn is_starting(&self, id: Id, run: u64) -> bool {
        self.is_at(id, run, &Phase::Starting)
    }

    /// Why the last start of a service came to nothing, where that is so.
    pub(super) fn why_not_started(&self, id: Id) -> Option<String> {
        let unit = &self.units[id];
        let is_so = matches!(unit.phase, Phase::Failed | Phase::Restarting);
        is_so.then(|| unit.why.clone().unwrap_or_default())
    }

    /// How they are.
    pub(super) fn statuses(&self) -> Vec<ServiceStatus> {
        let status = |unit: &Unit| ServiceStatus {
            name: unit.service.name.clone(),
            command: unit.service.command.chars().take(COMMAND).collect(),
            state: unit.phase.state(),
            why: unit.why.clone(),
            restarts: unit.restarts,
        };
        self.units.iter().map(status).collect()
    }

    /// Takes an input: changes the state and says what is to be done, in this order.
    pub(super) fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Begin(found) => {
                for (id, found) in found.into_iter().enumerate().take(self.units.len()) {
                    self.begin(id, found, &mut effects);
                }
            }
            Input::Started { id, run } if self.is_at(id, run, &Phase::Starting) => {
                effects.push(Effect::Probe { id, run });
            }
            Input::NotStarted { id, run, why, may_help } if self.is_current(id, run) => match may_help {
                MayHelp::Yes => self.fail(id, why, None, &mut effects),
                MayHelp::No => self.enter(id, Phase::Failed, Some(why), None, &mut effects),
            },
            Input::Ready { id, run } if self.is_at(id, run, &Phase::Starting) => {
                self.enter(id, Phase::Ready, None, None, &mut effects);
            }
            Input::Late { id, run, why } if self.is_at(id, run, &Phase::Starting) => {
                self.stop(id, Then::Fail(why), &mut effects);
            }
            Input::Ended { id, run, end } if self.is_current(id, run) => self.ended(id, end, &mut effects),
            Input::PauseOver { id, run } if self.is_at(id, run, &Phase::Restarting) => {
                self.units[id].restarts += 1;
                self.start(id, None, &mut effects);
            }
            Input::Asked { id, wish, by } if id < self.units.len() && !self.ending => {
                self.asked(id, wish, by, &mut effects);
            }
            Input::WaitOver => self.wait_over(&mut effects),
            Input::EndAll => self.ending = true,
            // Of an earlier start.
            _ => {}
        }
        if self.ending {
            self.end_some(&mut effects);
        } else {
            self.start_some(&mut effects);
        }
        if self.waited_for && (0..self.units.len()).all(|id| self.is_settled(id)) {
            self.waited_for = false;
            effects.push(Effect::Settled);
        }
        effects
    }

    fn is_current(&self, id: Id, run: u64) -> bool {
        self.units.get(id).is_some_and(|unit| unit.run == run && unit.phase.runs())
    }

    fn is_at(&self, id: Id, run: u64, phase: &Phase) -> bool {
        self.units.get(id).is_some_and(|unit| unit.run == run && unit.phase == *phase)
    }

    /// Whether waiting for a service is of no use: it is ready, or will not be soon.
    fn is_settled(&self, id: Id) -> bool {
        let unit = &self.units[id];
        match unit.phase {
            Phase::Ready | Phase::Failed | Phase::Ended | Phase::Stopped => true,
            Phase::Restarting => unit.failures >= HOPELESS,
            // Those before it come before it in the order, so this ends.
            Phase::Waiting => unit.service.after.iter().filter_map(|name| self.id(name)).any(|before| {
                !matches!(self.units[before].phase, Phase::Ready | Phase::Ended) && self.is_settled(before)
            }),
            Phase::Starting | Phase::Stopping(_) => false,
        }
    }

    fn begin(&mut self, id: Id, found: Found, effects: &mut Vec<Effect>) {
        let unit = &mut self.units[id];
        match (found.call, found.told) {
            // Whether it is ready was told, or is to be found out.
            (Call::Runs, Some(ServiceState::Ready)) => (unit.phase, unit.run) = (Phase::Ready, 1),
            (Call::Runs, _) => {
                (unit.phase, unit.run) = (Phase::Starting, 1);
                effects.push(Effect::Probe { id, run: 1 });
            }
            (_, Some(ServiceState::Failed)) => unit.phase = Phase::Failed,
            (_, Some(ServiceState::Ended)) => unit.phase = Phase::Ended,
            (_, Some(ServiceState::Stopped)) => unit.phase = Phase::Stopped,
            // It ended while nobody looked.
            (Call::Ended(end), Some(ServiceState::Starting | ServiceState::Ready)) => {
                (unit.phase, unit.run) = (Phase::Ready, 1);
                self.ended(id, end, effects);
            }
            // It was never started, was about to be started again, or its fate is not known: it does not run.
            (Call::None | Call::Ended(_), _) => {}
        }
    }

    /// Enters a state and tells so.
    fn enter(&mut self, id: Id, phase: Phase, why: Option<String>, output: Option<String>, effects: &mut Vec<Effect>) {
        let unit = &mut self.units[id];
        (unit.phase, unit.why) = (phase, why.clone());
        if !self.ending {
            effects.push(Effect::Tell { id, state: self.units[id].phase.state(), why, output });
        }
    }

    fn start(&mut self, id: Id, why: Option<String>, effects: &mut Vec<Effect>) {
        let unit = &mut self.units[id];
        unit.run += 1;
        (unit.phase, unit.why) = (Phase::Starting, why.clone());
        effects.push(Effect::Start { id, run: unit.run, why });
    }

    fn stop(&mut self, id: Id, then: Then, effects: &mut Vec<Effect>) {
        let is_first = !matches!(self.units[id].phase, Phase::Stopping(_));
        self.units[id].phase = Phase::Stopping(then);
        if is_first {
            effects.push(Effect::Stop { id });
        }
    }

    fn asked(&mut self, id: Id, wish: Wish, by: String, effects: &mut Vec<Effect>) {
        let runs = self.units[id].phase.runs();
        match wish {
            Wish::Stop if runs => self.stop(id, Then::Stay(format!("stopped by {by}")), effects),
            Wish::Stop if matches!(self.units[id].phase, Phase::Waiting | Phase::Restarting) => {
                self.enter(id, Phase::Stopped, Some(format!("stopped by {by}")), None, effects);
            }
            Wish::Stop => {}
            Wish::Restart => {
                self.units[id].failures = 0;
                let why = format!("started again by {by}");
                if runs { self.stop(id, Then::Again(why), effects) } else { self.start(id, Some(why), effects) }
            }
        }
    }

    fn ended(&mut self, id: Id, end: End, effects: &mut Vec<Effect>) {
        let phase = self.units[id].phase.clone();
        let output = Some(end.output).filter(|output| !output.is_empty());
        match phase {
            Phase::Stopping(Then::Stay(why)) => self.enter(id, Phase::Stopped, Some(why), None, effects),
            Phase::Stopping(Then::Again(why)) => self.start(id, Some(why), effects),
            Phase::Stopping(Then::Fail(why)) => self.fail(id, why, output, effects),
            _ if end.stopped => self.enter(id, Phase::Stopped, Some("it was stopped".into()), None, effects),
            _ => {
                if phase == Phase::Ready && end.ran >= STEADY {
                    self.units[id].failures = 0;
                }
                let why = format!("it ended {}", super::run::how(end.status));
                match (self.units[id].service.restart, end.status) {
                    (Restart::Never | Restart::OnFailure, 0) => {
                        self.enter(id, Phase::Ended, Some(why), output, effects)
                    }
                    _ => self.fail(id, why, output, effects),
                }
            }
        }
    }

    /// A start failed: again after a pause, or never more.
    fn fail(&mut self, id: Id, why: String, output: Option<String>, effects: &mut Vec<Effect>) {
        let ending = self.ending;
        let unit = &mut self.units[id];
        unit.failures += 1;
        let (failures, run) = (unit.failures, unit.run);
        if ending || unit.service.restart == Restart::Never {
            return self.enter(id, Phase::Failed, Some(why), output, effects);
        }
        if failures > MAX_RESTARTS {
            let why = format!("{why}; it was started again {MAX_RESTARTS} times in a row and is given up");
            return self.enter(id, Phase::Failed, Some(why), output, effects);
        }
        let time = FIRST_PAUSE * 2_u32.pow(failures - 1);
        let words =
            format!("{why}; it is started again in {} ({failures} of {MAX_RESTARTS})", crate::config::TimeSpan(time));
        self.enter(id, Phase::Restarting, Some(words), output, effects);
        effects.push(Effect::Pause { id, run, time });
    }

    /// Starts what waits for nobody any more; what waits in vain fails.
    fn start_some(&mut self, effects: &mut Vec<Effect>) {
        // In their order, so that one that fails takes those after it along.
        for id in 0..self.units.len() {
            if self.units[id].phase != Phase::Waiting {
                continue;
            }
            let before = |name: &String| self.units.iter().find(|unit| unit.service.name == *name);
            let phases: Vec<(&str, &Phase)> = self.units[id]
                .service
                .after
                .iter()
                .filter_map(before)
                .map(|unit| (unit.service.name.as_str(), &unit.phase))
                .collect();
            let in_vain = phases.iter().find(|(_, phase)| matches!(phase, Phase::Failed | Phase::Stopped));
            if let Some((name, phase)) = in_vain {
                let how = if **phase == Phase::Failed { "failed" } else { "was stopped" };
                let why = format!("`{name}`, after which it starts, {how}");
                self.enter(id, Phase::Failed, Some(why), None, effects);
            } else if phases.iter().all(|(_, phase)| matches!(phase, Phase::Ready | Phase::Ended)) {
                self.start(id, None, effects);
            }
        }
    }

    /// Stops those that nothing that runs was started after.
    fn end_some(&mut self, effects: &mut Vec<Effect>) {
        for id in (0..self.units.len()).rev() {
            let name = &self.units[id].service.name;
            let needed = self.units.iter().any(|other| other.phase.runs() && other.service.after.contains(name));
            match self.units[id].phase {
                Phase::Starting | Phase::Ready if !needed => self.stop(id, Then::Stay(String::new()), effects),
                Phase::Waiting | Phase::Restarting => self.units[id].phase = Phase::Stopped,
                // It ends as it was to be stopped, and is not started again.
                Phase::Stopping(_) => self.units[id].phase = Phase::Stopping(Then::Stay(String::new())),
                _ => {}
            }
        }
        if !self.units.iter().any(|unit| unit.phase.runs()) {
            effects.push(Effect::Over);
        }
    }

    fn wait_over(&mut self, effects: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.waited_for) {
            return;
        }
        for id in 0..self.units.len() {
            let unit = &self.units[id];
            if matches!(unit.phase, Phase::Waiting | Phase::Starting) {
                let why = Some("it took too long; the agent begins without it".to_owned());
                effects.push(Effect::Tell { id, state: unit.phase.state(), why, output: None });
            }
        }
        effects.push(Effect::Settled);
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
