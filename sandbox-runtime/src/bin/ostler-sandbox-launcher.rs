//! A launcher alone, for tests and for trying sandboxes by hand: one argument, the configuration as JSON. With `unpack` and a
//! plan it is the process that unpacks archives.
//!
//! The product runs both from the `ostler` binary; this one has nothing of the host in it.

use std::process::ExitCode;

use ostler_sandbox::launcher::{self, LauncherConfig};
use ostler_sandbox::store::unpacker;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ended = match &arguments[..] {
        [verb, plan] if verb == "unpack" => unpacker::run(plan),
        [configuration] => LauncherConfig::from_argument(configuration).and_then(launcher::run),
        _ => LauncherConfig::from_argument("").and_then(launcher::run),
    };
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
