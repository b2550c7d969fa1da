//! `cargo xtask`: everything that a newcomer or the continuous integration does with this repository, one command
//! each.
//!
//! ```text
//! arguments ─► setup (packages, wasm target, host, plugins, base image) ─► test (and its tools) | demo | bench |
//!          │                                                                 torture
//!          ├─► package
//!          └─► lint | book
//! ```
//!
//! It only drives other programs (cargo, apt-get, mmdebstrap, git, `ostler` itself) and looks at what they say. It
//! knows nothing of the host's insides: everything that depends on the command line of `ostler` is in
//! [`demo::verbs`] and [`setup`].

mod arguments;
mod bench;
mod book;
mod demo;
mod error;
mod json;
mod layout;
mod lint;
mod output;
mod package;
mod process;
mod setup;
mod stamp;
mod test;
mod torture;

use std::process::ExitCode;

use arguments::Task;
use error::Result;
use layout::Layout;

fn main() -> ExitCode {
    let outcome = arguments::parse(std::env::args_os().skip(1)).and_then(run);
    match outcome {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Help => output::say(arguments::HELP),
        // The guard lives beside the demo and needs nothing of the repository.
        Task::Guard(options) => return demo::guard::run(&options),
        Task::Setup(options) => {
            let layout = Layout::find()?;
            setup::run(&layout, &options)?;
            setup::test_tools(&layout, &options)?;
        }
        Task::Test { setup, filters } => test::run(&Layout::find()?, &setup, &filters)?,
        Task::Demo(options) => demo::run(&Layout::find()?, &options)?,
        Task::Bench { setup, arguments } => bench::run(&Layout::find()?, &setup, &arguments)?,
        Task::Torture { setup, arguments } => torture::run(&Layout::find()?, &setup, &arguments)?,
        Task::Package(options) => package::run(&Layout::find()?, &options)?,
        Task::Lint => lint::run(&Layout::find()?)?,
        Task::Book => book::run(&Layout::find()?)?,
    }
    Ok(ExitCode::SUCCESS)
}
