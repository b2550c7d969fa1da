//! What runs in the sandbox beside the agent, as the log tells it, and what of that the agent was not told yet. Pure.
//!
//! A change becomes a line that waits for the next question to the model, because a conversation takes nothing between a
//! question and its answer. So the agent is told of each change once, also after a restart of the host.

use std::collections::{BTreeMap, BTreeSet};

use ostler_protocol::EventBody;
use ostler_protocol::processes::ServiceState;

/// Where the agent is told that what is said is from.
pub(super) const SOURCE: &str = "ostler";

/// Lines that wait at most; the oldest are dropped for newer ones.
const MOST_UNTOLD: usize = 64;

/// What the log tells of the current sandbox, and what waits to be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beside {
    /// The last state of each service.
    pub services: BTreeMap<String, ServiceState>,
    /// Background commands whose ends were told, as (name, run).
    pub ended: BTreeSet<(String, String)>,
    /// Whether a command was started in the background of the current sandbox.
    started: bool,
    untold: Vec<Change>,
    /// Lines that were dropped.
    dropped: usize,
}

/// A change that waits to be told.
#[derive(Clone, Debug, PartialEq)]
enum Change {
    /// In words.
    Words(String),
    /// Where a service is now, however often that changed meanwhile.
    Service { name: String, state: ServiceState, why: Option<String>, output: Option<String>, failures: usize },
}

impl Beside {
    /// Takes one event of the log.
    pub(super) fn apply(&mut self, body: &EventBody) {
        match body {
            EventBody::ServiceChanged { service, state, why, output, .. } => {
                self.services.insert(service.clone(), *state);
                // That one is being started is told with what becomes of it.
                if why.is_some() || !matches!(state, ServiceState::Starting | ServiceState::Waiting) {
                    self.wait_service(service, *state, why.clone(), output.clone());
                }
            }
            EventBody::ServicesRefused { reason } => {
                self.wait(format!("The services of this repository are not started: {reason}"));
            }
            EventBody::ProcessEnded { process, run, exit_status, output } => {
                self.ended.insert((process.clone(), run.clone()));
                let how = format!("The background command `{process}` ended by itself with status {exit_status}.");
                self.wait(with_output(how, Some(output)));
            }
            EventBody::ProcessStarted { .. } => self.started = true,
            EventBody::ToolStarted { tool, arguments, .. } if tool == "shell" => {
                self.started |= arguments["background"] == serde_json::Value::Bool(true);
            }
            EventBody::WorkspaceReady { restored, .. } => {
                (self.services, self.ended) = (BTreeMap::new(), BTreeSet::new());
                if std::mem::take(&mut self.started) && *restored {
                    self.wait("The sandbox was started anew with its files: commands in the background ended with the old one.".into());
                }
            }
            EventBody::ModelRequested { .. } => (self.untold, self.dropped) = (Vec::new(), 0),
            _ => {}
        }
    }

    fn wait(&mut self, words: String) {
        self.put(Change::Words(words));
    }

    /// One line for each service: its state now, and the last words of a failure on the way there.
    fn wait_service(&mut self, service: &str, state: ServiceState, why: Option<String>, output: Option<String>) {
        let failed = usize::from(matches!(state, ServiceState::Restarting | ServiceState::Failed));
        let earlier = |change: &Change| matches!(change, Change::Service { name, .. } if name == service);
        let earlier = self.untold.iter().position(earlier).map(|position| self.untold.remove(position));
        let (output, failures) = match earlier {
            Some(Change::Service { output: before, failures, .. }) => (output.or(before), failures + failed),
            _ => (output, failed),
        };
        self.put(Change::Service { name: service.to_owned(), state, why, output, failures });
    }

    fn put(&mut self, change: Change) {
        if self.untold.len() == MOST_UNTOLD {
            self.untold.remove(0);
            self.dropped += 1;
        }
        self.untold.push(change);
    }

    /// What the agent is to be told with the next question, if anything.
    pub(super) fn news(&self) -> Option<String> {
        if self.untold.is_empty() {
            return None;
        }
        let dropped = match self.dropped {
            0 => String::new(),
            count => format!("({count} earlier changes are left out)\n"),
        };
        let lines: Vec<String> = self.untold.iter().map(Change::line).collect();
        Some(format!("{dropped}{}", lines.join("\n")))
    }
}

impl Change {
    fn line(&self) -> String {
        match self {
            Self::Words(words) => words.clone(),
            Self::Service { name, state, why, output, failures } => {
                let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
                let has_failed = matches!(state, ServiceState::Restarting | ServiceState::Failed);
                let before = match failures {
                    0 => String::new(),
                    1 if has_failed => String::new(),
                    1 => " It ended once before that.".to_owned(),
                    count => format!(" It ended {count} times meanwhile."),
                };
                with_output(format!("The service `{name}` is {}{why}.{before}", state.as_str()), output.as_deref())
            }
        }
    }
}

fn with_output(line: String, output: Option<&str>) -> String {
    match output.filter(|output| !output.trim().is_empty()) {
        Some(output) => {
            let lines: Vec<String> = output.lines().map(|line| format!("  | {line}")).collect();
            format!("{line} It wrote last:\n{}", lines.join("\n"))
        }
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(state: ServiceState, why: Option<&str>, output: Option<&str>) -> EventBody {
        let (why, output) = (why.map(str::to_owned), output.map(str::to_owned));
        EventBody::ServiceChanged { service: "web".into(), state, why, output, decision: None }
    }

    fn asked() -> EventBody {
        let turn = ostler_protocol::TurnId::generate();
        EventBody::ModelRequested { turn, step: 1, model: "m".into() }
    }

    #[test]
    fn each_change_waits_for_the_next_question_and_is_told_once() {
        let mut beside = Beside::default();
        beside.apply(&changed(ServiceState::Starting, None, None));
        assert_eq!(beside.news(), None);
        beside.apply(&changed(ServiceState::Ready, None, None));
        beside.apply(&changed(ServiceState::Failed, Some("it ended with status 3"), Some("one\ntwo")));
        let told = "The service `web` is failed: it ended with status 3. It wrote last:\n  | one\n  | two";
        assert_eq!(beside.news().as_deref(), Some(told));
        beside.apply(&asked());
        assert_eq!(beside.news(), None);
        assert_eq!(beside.services["web"], ServiceState::Failed);
    }

    #[test]
    fn a_service_that_comes_and_goes_takes_one_line_with_its_last_failure() {
        let mut beside = Beside::default();
        for number in 1..=3 {
            beside.apply(&changed(ServiceState::Restarting, Some("it ended"), Some(&format!("words {number}"))));
            beside.apply(&changed(ServiceState::Starting, None, None));
            beside.apply(&changed(ServiceState::Ready, None, None));
        }
        let told = "The service `web` is ready. It ended 3 times meanwhile. It wrote last:\n  | words 3";
        assert_eq!(beside.news().as_deref(), Some(told));
    }

    #[test]
    fn what_waits_is_bounded_and_what_was_left_out_is_said() {
        let mut beside = Beside::default();
        for number in 0..MOST_UNTOLD + 3 {
            let (process, run, output) = (format!("p{number}"), "1".to_owned(), String::new());
            beside.apply(&EventBody::ProcessEnded { process, run, exit_status: 0, output });
        }
        let news = beside.news().unwrap();
        assert!(news.starts_with("(3 earlier changes are left out)\n"), "{news}");
        assert_eq!(news.lines().count(), MOST_UNTOLD + 1);
    }

    #[test]
    fn a_new_sandbox_has_neither_services_nor_commands_of_the_old_one() {
        let mut beside = Beside::default();
        beside.apply(&changed(ServiceState::Ready, None, None));
        let ended =
            EventBody::ProcessEnded { process: "a".into(), run: "1".into(), exit_status: 0, output: String::new() };
        beside.apply(&ended);
        beside.apply(&asked());
        let ready = EventBody::WorkspaceReady { took_ms: 1, restored: true };
        beside.apply(&ready);
        assert_eq!(beside, Beside::default(), "nothing was started in the background");
        let by = ostler_protocol::event::Person { name: "R".into(), email: "r@example.org".into() };
        beside.apply(&EventBody::ProcessStarted { process: "a".into(), command: "b".into(), by });
        beside.apply(&ready);
        assert!(beside.news().unwrap().contains("ended with the old one"), "{:?}", beside.news());
    }
}
