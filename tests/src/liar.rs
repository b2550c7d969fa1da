//! A guest that lies, for a host of a test: the program of `tests/liar`, with the real guest in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Builds the program into `folder`.
///
/// # Errors
/// When it cannot be built.
pub fn build(folder: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("liar/guest.rs");
    let real = folder.join("real-guest");
    fs::write(&real, ostler_sandbox::guest_image::bytes())?;
    let program = folder.join("liar");
    let status = Command::new("rustc")
        .args(["--edition=2024", "-Copt-level=1", "-Cstrip=symbols", "-Ctarget-feature=+crt-static"])
        .arg(format!("--target={}-unknown-linux-gnu", std::env::consts::ARCH))
        .env("OSTLER_REAL_GUEST", &real)
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .status()
        .context("run rustc")?;
    ensure!(status.success(), "the guest that lies must build");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}
