//! The command line of `ostler` as the demo uses it: the only place to change when a verb changes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::person::Person;
use crate::error::{Error, Result};
use crate::json::{self, Value};
use crate::process;

/// Names the directory in which a running host says where it is.
const RUNTIME_DIRECTORY: &str = "OSTLER_RUNTIME_DIR";

/// Longest time for a verb that only reads.
pub const READ_LIMIT: Duration = Duration::from_secs(30);

/// Environment variables by which the command line would find another host than the demo's.
const FOREIGN: [&str; 6] =
    ["OSTLER_URL", "OSTLER_TOKEN", "OSTLER_DATA", "OSTLER_CONFIG", "OSTLER_MODEL", "OSTLER_LISTEN"];

/// Who answers the agent.
#[derive(Clone, Debug)]
pub enum Model {
    /// The conversation in this file.
    Scripted(PathBuf),
    /// A model of a provider; its key and address are in the environment.
    Real(String),
}

/// The binary, and where the demo's host lives.
#[derive(Clone, Debug)]
pub struct Verbs {
    /// The host's binary.
    pub ostler: PathBuf,
    /// The host's data directory.
    pub data: PathBuf,
    /// The directory in which the host says where it is, so that the other verbs find it.
    pub runtime: PathBuf,
}

impl Verbs {
    /// Imports a root file system as an image into the store. Needs no running host.
    pub fn import_image(&self, tar: &Path, name: &str) -> Command {
        let mut command = self.verb(&["images", "import"]);
        command.arg(tar).args(["--name", name]).arg("--data").arg(&self.data);
        command
    }

    /// The command line that runs the host in the foreground until it is told to stop. It writes a line with
    /// its address (`http://…`) to standard output when it is ready.
    pub fn up(&self, image: &str, plugin: &Path, model: &Model) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["env".into()];
        words.extend(FOREIGN.iter().flat_map(|name| ["-u".into(), name.into()]));
        let mut runtime = OsString::from(RUNTIME_DIRECTORY);
        runtime.push("=");
        runtime.push(&self.runtime);
        words.extend([runtime, self.ostler.clone().into(), "up".into()]);
        words.extend(["--data".into(), self.data.clone().into()]);
        words.extend(["--listen".into(), "127.0.0.1:0".into()]);
        words.extend(["--image".into(), image.into()]);
        words.extend(["--plugin".into(), plugin.into()]);
        match model {
            Model::Scripted(script) => words.extend(["--script".into(), script.into()]),
            Model::Real(name) => words.extend(["--model".into(), name.into()]),
        }
        words
    }

    /// Pushes a repository to the host, makes a session, sends a prompt, shows the transcript until the work is done.
    pub fn run(&self, repository: &Path, person: &Person, prompt: &str) -> Command {
        let mut command = self.verb(&["run"]);
        command.arg("--repo").arg(repository);
        command.args(["--name", &person.name, "--email", &person.email]);
        command.arg(prompt);
        command
    }

    /// The unified diff of a session, as a person sees it.
    pub fn diff(&self, session: &str) -> Command {
        self.verb(&["diff", session])
    }

    /// A pull request, as a person sees it.
    pub fn pull_request(&self, id: &str) -> Command {
        self.verb(&["pr", "show", id])
    }

    /// Every session (`SessionView` of the API).
    ///
    /// # Errors
    /// When the host does not answer, or not so.
    pub fn sessions(&self) -> Result<Vec<Value>> {
        let list = self.read_json(self.verb(&["sessions", "--json"]))?;
        list.list("sessions").map(<[Value]>::to_vec).ok_or_else(|| Error::Malformed {
            what: "ostler sessions --json".to_owned(),
            problem: "no member `sessions`".to_owned(),
        })
    }

    /// A pull request (`PullRequestView` of the API).
    ///
    /// # Errors
    /// When the host does not answer, or not so.
    pub fn pull_request_json(&self, id: &str) -> Result<Value> {
        self.read_json(self.verb(&["pr", "show", id, "--json"]))
    }

    /// Every event of a session, one `Event` per line.
    ///
    /// # Errors
    /// When the host does not answer, or not so.
    pub fn events(&self, session: &str) -> Result<Vec<Value>> {
        let mut command = self.verb(&["events", session, "--json"]);
        let text = process::read(&mut command, READ_LIMIT)?;
        let read = |line: &str| json::parse(line).map_err(|problem| malformed(&command, problem));
        text.lines().filter(|line| !line.trim().is_empty()).map(read).collect()
    }

    fn verb(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.ostler);
        command.args(words).env(RUNTIME_DIRECTORY, &self.runtime);
        for name in FOREIGN {
            command.env_remove(name);
        }
        command
    }

    fn read_json(&self, mut command: Command) -> Result<Value> {
        let text = process::read(&mut command, READ_LIMIT)?;
        json::parse(&text).map_err(|problem| malformed(&command, problem))
    }
}

fn malformed(command: &Command, problem: String) -> Error {
    Error::Malformed { what: process::describe(command), problem }
}
