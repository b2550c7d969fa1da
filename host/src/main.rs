//! Entry point of the one binary: what it does is in [`ostler::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ostler::cli::main()
}
