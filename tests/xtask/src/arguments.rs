//! The command line of `cargo xtask`.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::package::{self, PackageOptions};

/// What `cargo xtask help` says.
pub const HELP: &str = "\
Usage: cargo xtask <task>

  demo [--keep] [--model M] set up, then show a prompt become a pull request; --keep leaves its directory;
                            --model anthropic/NAME or openai/NAME asks a real model (see docs/src/models.md)
  test [FILTER]...          set up, then run every test (or those whose name contains a filter)
  bench [SUITE] [--json F]  set up, then measure
  torture SUITE             set up, then be rough for long: sandbox [--creates N] [--concurrency N]
                            [--minutes N] [--seed N]
  setup                     only set up: packages, wasm target, host, plugins, base image, tools of tests
  package                   build for release and make a Debian package in target/package;
                            --profile P: build in another profile; --binary F --policy F: take what was built;
                            --version V, --output DIR, --compression xz|gzip|none: of the package
  lint                      formatting and clippy, warnings denied
  book                      build the documentation into target/book

Options of the first six:
  --no-packages             take the installed Debian packages as they are
  --refresh-image           make the base image anew, with today's packages (not of `package`)

Set OSTLER_WASM=rust or OSTLER_WASM=debian to choose who builds the plugins.";

/// A task with its options.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// Show [`HELP`].
    Help,
    /// Set up.
    Setup(SetupOptions),
    /// Set up and test.
    Test {
        /// How to set up.
        setup: SetupOptions,
        /// Passed to the test runner.
        filters: Vec<String>,
    },
    /// Set up and show.
    Demo(DemoOptions),
    /// Set up and measure.
    Bench {
        /// How to set up.
        setup: SetupOptions,
        /// Passed to the benchmark program.
        arguments: Vec<String>,
    },
    /// Set up and be rough for long.
    Torture {
        /// How to set up.
        setup: SetupOptions,
        /// Passed to the torture program.
        arguments: Vec<String>,
    },
    /// Make a Debian package.
    Package(PackageOptions),
    /// Formatting and clippy.
    Lint,
    /// The documentation.
    Book,
    /// Internal: keeps the demo's host and cleans up after it, whatever happens to the demo.
    Guard(GuardOptions),
}

/// How to set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetupOptions {
    /// Whether Debian packages are left alone.
    pub no_packages: bool,
    /// Whether the base image is made anew.
    pub refresh_image: bool,
}

/// How to run the demo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DemoOptions {
    /// How to set up.
    pub setup: SetupOptions,
    /// Whether the demo's directory stays afterwards.
    pub keep: bool,
    /// A model in place of the scripted one, such as `openai/NAME`.
    pub model: Option<String>,
}

/// The guard's third argument when its directory is to stay.
pub const KEEP: &str = "keep";

/// What the guard keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardOptions {
    /// The demo's directory, removed at the end.
    pub directory: PathBuf,
    /// Whether the directory stays.
    pub keep: bool,
    /// Where the host's standard error goes.
    pub log: PathBuf,
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// [`Error::Usage`] that names the argument.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Task> {
    let mut arguments: Vec<OsString> = arguments.collect();
    if arguments.is_empty() {
        return Ok(Task::Help);
    }
    let task = arguments.remove(0).into_string().map_err(|name| unknown("task", &name.to_string_lossy()))?;
    if task == "guard" {
        return guard(arguments).map(Task::Guard);
    }
    if task == "package" {
        return Ok(package::parse(arguments)?.map_or(Task::Help, Task::Package));
    }
    let mut rest = Vec::new();
    let mut options = DemoOptions::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let argument = argument.into_string().map_err(|text| unknown("argument", &text.to_string_lossy()))?;
        match argument.as_str() {
            "--no-packages" => options.setup.no_packages = true,
            "--refresh-image" => options.setup.refresh_image = true,
            "--keep" if task == "demo" => options.keep = true,
            "--model" if task == "demo" => {
                let model = arguments.next().and_then(|model| model.into_string().ok());
                let is_name = |model: &String| {
                    model.split_once('/').is_some_and(|(provider, name)| !provider.is_empty() && !name.is_empty())
                };
                options.model = Some(model.filter(is_name).ok_or_else(|| Error::Usage {
                    problem: "`--model` wants a name such as `anthropic/NAME` or `openai/NAME`".to_owned(),
                })?);
            }
            "--help" | "-h" => return Ok(Task::Help),
            _ => rest.push(argument),
        }
    }
    let setup = options.setup.clone();
    match task.as_str() {
        "help" | "--help" | "-h" => Ok(Task::Help),
        "test" => match rest.iter().find(|argument| argument.starts_with('-')) {
            Some(option) => Err(unknown("option", option)),
            None => Ok(Task::Test { setup, filters: rest }),
        },
        // These programs check their own arguments.
        "torture" => Ok(Task::Torture { setup, arguments: rest }),
        "bench" => Ok(Task::Bench { setup, arguments: rest }),
        "demo" | "setup" | "lint" | "book" => match (rest.first(), task.as_str()) {
            (Some(argument), _) => Err(unknown("argument", argument)),
            (None, "demo") => Ok(Task::Demo(options)),
            (None, "setup") => Ok(Task::Setup(setup)),
            (None, "lint") => Ok(Task::Lint),
            (None, _) => Ok(Task::Book),
        },
        other => Err(unknown("task", other)),
    }
}

fn guard(arguments: Vec<OsString>) -> Result<GuardOptions> {
    let mut arguments = arguments.into_iter();
    let mut next = |what| arguments.next().ok_or_else(|| Error::Usage { problem: format!("guard: no {what}") });
    let directory = next("directory")?.into();
    let log = next("log")?.into();
    let keep = next("word about keeping")? == KEEP;
    Ok(GuardOptions { directory, keep, log })
}

fn unknown(kind: &str, text: &str) -> Error {
    Error::Usage { problem: format!("unknown {kind} `{text}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Task> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_task_is_understood() {
        let refreshed = SetupOptions { refresh_image: true, ..SetupOptions::default() };
        assert_eq!(read("").unwrap(), Task::Help);
        assert_eq!(read("setup --refresh-image").unwrap(), Task::Setup(refreshed));
        assert_eq!(
            read("test stop_keeps --no-packages").unwrap(),
            Task::Test {
                setup: SetupOptions { no_packages: true, ..SetupOptions::default() },
                filters: vec!["stop_keeps".to_owned()]
            }
        );
        assert_eq!(read("demo --keep").unwrap(), Task::Demo(DemoOptions { keep: true, ..DemoOptions::default() }));
        let real = DemoOptions { model: Some("openai/org/small:7b".into()), ..DemoOptions::default() };
        assert_eq!(read("demo --model openai/org/small:7b").unwrap(), Task::Demo(real));
        assert_eq!(
            read("bench sandbox --json out.json").unwrap(),
            Task::Bench {
                setup: SetupOptions::default(),
                arguments: vec!["sandbox".into(), "--json".into(), "out.json".into()]
            }
        );
        assert_eq!(
            read("torture sandbox --minutes 1").unwrap(),
            Task::Torture {
                setup: SetupOptions::default(),
                arguments: vec!["sandbox".into(), "--minutes".into(), "1".into()]
            }
        );
        assert_eq!(read("package").unwrap(), Task::Package(PackageOptions::default()));
        assert_eq!(read("lint").unwrap(), Task::Lint);
        assert_eq!(read("book").unwrap(), Task::Book);
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (line, named) in [
            ("tset", "tset"),
            ("demo --kep", "--kep"),
            ("test --keep", "--keep"),
            ("lint x", "`x`"),
            ("book x", "`x`"),
            ("package --binary x", "--policy"),
            ("demo --model", "--model"),
            ("demo --model small", "--model"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.to_string().contains(named), "{line}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
