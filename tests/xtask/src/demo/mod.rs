//! `cargo xtask demo`: a prompt becomes a pull request, with everything real but the model, and that too with `--model`.
//!
//! ```text
//! set up ─► repository from examples/demo-repo, its tests fail
//!        ─► image imported, host started by the guard ([`guard`])
//!        ─► `ostler run` shows the transcript live
//!        ─► pull request, diff, log of the bare repository, tests in a checkout of the branch ([`checks`])
//!        ─► table of times ([`times`])
//!        ─► host stopped, nothing left
//! ```
//!
//! Whatever is not as promised ends the demo with an error. It happens in one directory, which the guard removes even
//! when this process is killed.

mod checks;
pub mod guard;
mod leftovers;
mod person;
mod repository;
mod times;
pub mod verbs;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::arguments::DemoOptions;
use crate::error::{Error, Result};
use crate::json::Value;
use crate::layout::{self, Layout};
use crate::output::{self, Outcome};
use crate::process;
use crate::setup::{self, Products};

use guard::Guard;
use person::Person;
use verbs::{Model, READ_LIMIT, Verbs};

/// What the person asks for. Its first line becomes the title of the pull request.
const PROMPT: &str = "Accept durations without hours\n\n\
    `45m` in a timesheet is refused. It should count as 45 minutes. Run the tests before and after.";

/// Longest time for the agent's whole work.
const RUN_LIMIT: Duration = Duration::from_secs(5 * 60);

/// The same with a real model.
const REAL_RUN_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Longest time for the host to say its address, and for importing the image.
const START_LIMIT: Duration = Duration::from_secs(60);
const IMPORT_LIMIT: Duration = Duration::from_secs(5 * 60);

/// The file that the agent has to change.
const PROGRAM: &str = "timesheet.py";

/// Sets up and runs the demo.
///
/// # Errors
/// Those of the set-up; [`Error::Differs`] when the result is not what the demo promises.
pub fn run(layout: &Layout, options: &DemoOptions) -> Result<()> {
    setup::require_root("demo")?;
    let person = Person::find(&layout.root)?;
    let products = setup::run(layout, &options.setup)?;
    let stage = Stage::at(demo_directory());
    // From here on the guard removes the directory, whatever happens.
    let mut guard = Guard::begin(&stage.directory, &stage.host_log(), options.keep)?;
    let model = match &options.model {
        Some(name) => Model::Real(name.clone()),
        None => Model::Scripted(layout.root.join("examples/demo-script.toml")),
    };
    let shown = show(layout, &products, &person, &stage, &model, &mut guard);
    if shown.is_err() {
        let log = fs::read_to_string(stage.host_log()).unwrap_or_default();
        output::note(&format!("\nThe end of the host's log:\n{}", process::last_lines(&log)));
    }
    let ended = guard.end();
    shown.and(ended)?;
    output::say(&match options.keep {
        true => format!("\nThe host is stopped; everything is still in {}.", stage.directory.display()),
        false => "\nThe host is stopped and nothing of it is left.".to_owned(),
    });
    Ok(())
}

/// The demo's directory and what is where in it.
#[derive(Debug)]
struct Stage {
    directory: PathBuf,
}

impl Stage {
    fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn host_log(&self) -> PathBuf {
        self.directory.join("host.log")
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn repository(&self) -> PathBuf {
        self.directory.join("timesheet")
    }

    fn plugin(&self) -> PathBuf {
        self.directory.join("policy")
    }

    fn check_out(&self) -> PathBuf {
        self.directory.join("check-out")
    }
}

fn show(
    layout: &Layout,
    products: &Products,
    person: &Person,
    stage: &Stage,
    model: &Model,
    guard: &mut Guard,
) -> Result<()> {
    let examples = layout.root.join("examples");
    layout::make_directory(&stage.data())?;
    let verbs = Verbs { ostler: products.ostler.clone(), data: stage.data(), runtime: stage.directory.join("run") };

    repository::make(&examples.join("demo-repo"), &stage.repository())?;
    let (pass, _) = repository::tests_pass(&stage.repository())?;
    checks::same("tests of the example before", "fail", if pass { "pass" } else { "fail" })?;
    stage_plugin(layout, products, &stage.plugin())?;
    output::step("image into the store", || {
        process::run(&mut verbs.import_image(&products.image, "base"), IMPORT_LIMIT)?;
        Ok(((), Outcome::Done(String::new())))
    })?;
    let up = verbs.up("base", &stage.plugin(), model);
    let address = guard.start_host(&up, START_LIMIT)?;
    output::note(&format!("xtask: the host listens at {address}"));

    output::heading(&format!("{person} asks: {}", title()));
    let limit = match model {
        Model::Scripted(_) => RUN_LIMIT,
        Model::Real(_) => REAL_RUN_LIMIT,
    };
    process::run(&mut verbs.run(&stage.repository(), person, PROMPT), limit)?;
    let result = Outcomes::read(&verbs)?;
    report(&verbs, &result, stage, person, model)
}

/// What the host says about the finished work.
struct Outcomes {
    session: String,
    branch: String,
    pull_request: String,
    events: Vec<Value>,
}

impl Outcomes {
    fn read(verbs: &Verbs) -> Result<Self> {
        let sessions = verbs.sessions()?;
        checks::same("number of sessions", "1", &sessions.len().to_string())?;
        let text = |key: &str| {
            let value = sessions.first().and_then(|session| session.text(key)).map(str::to_owned);
            value.ok_or_else(|| Error::Differs {
                what: "the session".to_owned(),
                expected: format!("a member `{key}`"),
                found: "none".to_owned(),
            })
        };
        let session = text("id")?;
        let events = verbs.events(&session)?;
        Ok(Self { branch: text("branch")?, pull_request: text("pull_request")?, session, events })
    }
}

/// Shows the result and compares all of it with what the demo promises.
///
/// A real model goes its own way: which calls it makes and which files it changes is its business, that the tests pass and
/// the pull request is the person's is not.
fn report(verbs: &Verbs, result: &Outcomes, stage: &Stage, person: &Person, model: &Model) -> Result<()> {
    if matches!(model, Model::Scripted(_)) {
        checks::hooks_decided(&result.events)?;
    }
    let pull_request = verbs.pull_request_json(&result.pull_request)?;
    let text = |key: &str| pull_request.text(key).unwrap_or_default();
    checks::pull_request(&pull_request, person, title(), &result.branch)?;

    output::heading(&format!("pull request {}", text("url")));
    process::run(&mut verbs.pull_request(&result.pull_request), READ_LIMIT)?;
    output::heading("diff");
    process::run(&mut verbs.diff(&result.session), READ_LIMIT)?;

    let bare = repository::bare_below(&stage.data())?;
    output::heading(&format!("git log main..{} in {}", result.branch, bare.display()));
    output::say(repository::log(&bare, "main", &result.branch)?.trim_end());
    checks::branch(&bare, &result.branch, text("head_commit"), person)?;
    if matches!(model, Model::Scripted(_)) {
        checks::changed_files(&bare, &result.branch, &[PROGRAM])?;
    }

    repository::check_out(&bare, &result.branch, &stage.check_out())?;
    let (pass, said) = repository::tests_pass(&stage.check_out())?;
    output::heading("tests in a checkout of the branch");
    output::say(said.trim_end());
    checks::same("tests of the example after", "pass", if pass { "pass" } else { "fail" })?;

    output::heading("times after the prompt");
    output::say(&times::show(&times::table(&result.events)?));
    Ok(())
}

/// The policy plugin with the demo's rules.
fn stage_plugin(layout: &Layout, products: &Products, place: &Path) -> Result<()> {
    layout::make_directory(place)?;
    let copies = [
        (products.policy.clone(), "policy.wasm"),
        (layout.root.join("plugins/policy/plugin.toml"), "plugin.toml"),
        (layout.root.join("examples/demo-policy.toml"), "rules.toml"),
    ];
    for (source, name) in copies {
        fs::copy(&source, place.join(name)).map_err(Error::file("copy", &source))?;
    }
    Ok(())
}

fn title() -> &'static str {
    PROMPT.lines().next().unwrap_or_default()
}

/// A new name in the directory for temporary files that survive a full memory: uppers and layers go there.
fn demo_directory() -> PathBuf {
    let base = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    base.join(format!("ostler-demo-{}-{:06x}", std::process::id(), now.subsec_micros()))
}
