//! The first-party plugins: core modules by cargo, components by `ostler plugins componentize`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::host::BUILD_LIMIT;
use super::wasm::{Builder, TARGET};
use crate::error::{Error, Result};
use crate::layout::{self, Layout};
use crate::output::Outcome;
use crate::process;
use crate::stamp::{Fingerprint, Stamp};

/// Builds the policy plugin and returns the path of its component.
///
/// # Errors
/// [`Error::Command`] when a build fails; [`Error::File`] about what was built.
pub fn build(layout: &Layout, builder: &Builder, ostler: &Path) -> Result<(PathBuf, Outcome)> {
    let target = layout.target.join("plugins").join(builder.name());
    let mut cargo = builder.cargo_build();
    cargo
        .current_dir(layout.root.join("plugins"))
        .args(["--locked", "--release", "--package", "ostler-policy", "--lib", "--target-dir"])
        .arg(&target);
    process::run(&mut cargo, BUILD_LIMIT)?;

    let core = target.join(TARGET).join("release/ostler_policy.wasm");
    let directory = layout::make_directory(&layout.target.join("plugins/components/policy"))?;
    let component = directory.join("policy.wasm");
    let outcome = componentize(layout, ostler, &core, &component)?;
    Ok((component, outcome))
}

fn componentize(layout: &Layout, ostler: &Path, core: &Path, component: &Path) -> Result<Outcome> {
    let fingerprint = Fingerprint::new("component 1").file(core)?.file(&layout.root.join("Cargo.lock"))?;
    let stamp = Stamp::at(component.with_extension("stamp"));
    if component.is_file() && stamp.holds(&fingerprint) {
        return Ok(Outcome::Fresh);
    }
    // Made beside its place and renamed: an interrupted run leaves no half component.
    let partial = component.with_extension("wasm.partial");
    let mut command = Command::new(ostler);
    command.args(["plugins", "componentize"]).arg(core).arg("-o").arg(&partial);
    process::run(&mut command, Duration::from_secs(120))?;
    fs::rename(&partial, component).map_err(Error::file("rename", &partial))?;
    stamp.write(&fingerprint)?;
    let size = fs::metadata(component).map_err(Error::file("look at", component))?.len();
    Ok(Outcome::Done(format!("policy.wasm, {} KiB", size.div_ceil(1024))))
}
