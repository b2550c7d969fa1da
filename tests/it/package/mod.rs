//! The Debian package, from its making to its purge, in a root file system of its own.

mod lifecycle;
mod service;
mod unit;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Makes a package of the binary under test, in this version, and returns its path.
fn package(folder: &std::path::Path, version: &str) -> Result<PathBuf> {
    let binary = ostler_tests::host::binary()?;
    let policy = ostler_tests::host::variable("OSTLER_POLICY_WASM")?;
    // Built beside the binary, as every program of the workspace is.
    let mut xtask = Command::new(binary.with_file_name("xtask"));
    xtask.current_dir(env!("CARGO_MANIFEST_DIR")).arg("package").arg("--binary").arg(binary);
    xtask.arg("--policy").arg(policy).arg("--output").arg(folder).args(["--version", version]);
    // What is tested is the content; compressing it takes longer than everything else.
    let output = xtask.args(["--compression", "none"]).output().context("start xtask")?;
    ensure!(output.status.success(), "the package was not made: {}", String::from_utf8_lossy(&output.stderr));
    let path = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    ensure!(path.starts_with(folder) && path.is_file(), "there is no {}", path.display());
    Ok(path)
}
