//! A launcher alone, for tests and for trying sandboxes by hand: one argument, the configuration as JSON.
//!
//! The product runs its launcher from the `ostler` binary; this one has nothing of the host in it.

use std::process::ExitCode;

use ostler_sandbox::launcher::{self, LauncherConfig};

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_default();
    let ended = LauncherConfig::from_argument(&argument).and_then(launcher::run);
    let Err(error) = ended else { return ExitCode::SUCCESS };
    let mut words = format!("error: {error}");
    let mut next = std::error::Error::source(&error);
    while let Some(source) = next {
        words = format!("{words}: {source}");
        next = source.source();
    }
    // Nothing is left to be done if even this cannot be written.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{words}\n").as_bytes());
    ExitCode::FAILURE
}
