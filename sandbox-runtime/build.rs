//! Builds the guest, PID 1 of every sandbox, as a static program, for `guest_image` to embed.
//!
//! A plain `cargo build` of the workspace thus gives one complete binary. The nested cargo has a target directory of its
//! own, so it never waits for the lock of the outer one, and takes no flags or wrappers from it: the guest is the
//! same program in a test build, under clippy and in a release.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Variables of the outer cargo that would change the guest.
const FOREIGN: [&str; 10] = [
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

/// The guest is copied at each fork, so it is built small; it must not unwind, nobody would catch it.
const PROFILE: [(&str, &str); 7] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
    ("CARGO_PROFILE_RELEASE_INCREMENTAL", "false"),
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Cargo shows what a failed build script wrote to standard error.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "building the guest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let triple = variable("TARGET")?.into_string().map_err(|triple| format!("target {triple:?} is not UTF-8"))?;
    for watched in ["build.rs", "guest/src", "guest/Cargo.toml", "wire/src", "wire/Cargo.toml", "../Cargo.lock"] {
        emit(&format!("cargo::rerun-if-changed={}", here.join(watched).display()));
    }
    let target = out.join("guest-target");
    run_cargo(&here, &target, &triple)?;
    let program = target.join(&triple).join("release/ostler-guest");
    let image = out.join("ostler-guest");
    std::fs::copy(&program, &image).map_err(|error| format!("copying `{}`: {error}", program.display()))?;
    emit(&format!("cargo::rustc-env=OSTLER_GUEST_IMAGE={}", image.display()));
    Ok(())
}

fn run_cargo(here: &Path, target: &Path, triple: &str) -> Result<(), String> {
    let mut cargo = Command::new(variable("CARGO")?);
    for name in FOREIGN {
        cargo.env_remove(name);
    }
    cargo.envs(PROFILE);
    // With an explicit target the flag reaches the guest and not the procedural macros, which cannot be static.
    cargo.env(
        format!("CARGO_TARGET_{}_RUSTFLAGS", triple.to_uppercase().replace(['-', '.'], "_")),
        "-Ctarget-feature=+crt-static",
    );
    // The outer cargo has resolved and downloaded everything that the guest needs.
    cargo.args([
        "build",
        "--release",
        "--locked",
        "--offline",
        "--quiet",
        "--package",
        "ostler-guest",
        "--bin",
        "ostler-guest",
    ]);
    cargo.arg("--target").arg(triple).arg("--target-dir").arg(target).current_dir(here.join("guest"));
    let output = cargo.output().map_err(|error| format!("starting cargo: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("cargo ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn variable(name: &str) -> Result<OsString, String> {
    std::env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}

/// Says something to cargo.
fn emit(line: &str) {
    println!("{line}");
}
