//! The set-up: everything that has to be there before tests, demo and benchmarks.
//!
//! ```text
//! packages ─► host ─► wasm target ─► plugins ─► base image [─► schemathesis ─► TypeScript client]
//!                                                       [─► image of ordinary programs]
//! ```
//!
//! The last three are for tests only, the last one for `cargo xtask test` alone. Each step says what it did and how long it
//! took, and does nothing when it is up to date.

mod apt_sources;
mod contract;
mod host;
mod image;
mod packages;
mod plugins;
mod wasm;

use std::path::PathBuf;

use crate::arguments::SetupOptions;
use crate::error::Result;
use crate::layout::Layout;
use crate::output;

use image::Image;

pub use host::build_in_profile;
pub use packages::require_root;
pub use wasm::TARGET as WASM_TARGET;

/// What the set-up made.
#[derive(Clone, Debug)]
pub struct Products {
    /// The host's binary.
    pub ostler: PathBuf,
    /// The policy plugin, a component.
    pub policy: PathBuf,
    /// The base image, a tar file of a root file system.
    pub image: PathBuf,
}

/// What only tests need.
#[derive(Clone, Debug)]
pub struct TestTools {
    /// The program of schemathesis.
    pub schemathesis: PathBuf,
    /// The packages of the TypeScript client.
    pub node_modules: PathBuf,
}

/// Sets up what only tests need.
///
/// # Errors
/// The first failure of a step.
pub fn test_tools(layout: &Layout, options: &SetupOptions) -> Result<TestTools> {
    if !options.no_packages {
        output::step("Debian packages of the tests", || {
            packages::ensure(packages::TESTS).map(|outcome| ((), outcome))
        })?;
    }
    let schemathesis = output::step("schemathesis", || contract::schemathesis(layout, options.no_packages))?;
    let node_modules = output::step("TypeScript client", || contract::typescript(layout, options.no_packages))?;
    Ok(TestTools { schemathesis, node_modules })
}

/// Sets up.
///
/// # Errors
/// The first failure of a step.
pub fn run(layout: &Layout, options: &SetupOptions) -> Result<Products> {
    if options.no_packages {
        output::note("xtask: Debian packages: taken as they are");
    } else {
        output::step("Debian packages", || packages::ensure(packages::BASE).map(|outcome| ((), outcome)))?;
    }
    let ostler = output::step("host", || host::build(layout))?;
    let builder = output::step("wasm target", || wasm::prepare(layout, options.no_packages))?;
    let policy = output::step("plugins", || plugins::build(layout, &builder, &ostler))?;
    let image = output::step("base image", || image::build(layout, Image::Base, options.refresh_image))?;
    Ok(Products { ostler, policy, image })
}

/// Makes an image with ordinary programs, a tar file of a root file system. Only a run of all tests is worth its minutes.
///
/// # Errors
/// As for the base image.
pub fn programs(layout: &Layout, options: &SetupOptions) -> Result<PathBuf> {
    output::step("image of ordinary programs", || image::build(layout, Image::Programs, options.refresh_image))
}

/// Sets up what the Debian package is made of: the host in a profile of cargo, and the policy plugin.
///
/// # Errors
/// The first failure of a step.
pub fn for_package(layout: &Layout, options: &SetupOptions, profile: &str) -> Result<(PathBuf, PathBuf)> {
    if !options.no_packages {
        let names = [packages::BASE, packages::PACKAGE].concat();
        output::step("Debian packages", || packages::ensure(&names).map(|outcome| ((), outcome)))?;
    }
    let ostler = output::step("host", || build_in_profile(layout, profile))?;
    let builder = output::step("wasm target", || wasm::prepare(layout, options.no_packages))?;
    let policy = output::step("plugins", || plugins::build(layout, &builder, &ostler))?;
    Ok((ostler, policy))
}
