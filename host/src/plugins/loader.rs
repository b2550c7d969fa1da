//! From a folder to a plugin that can be asked. Whatever is wrong is found here, before the first event, and named.
//!
//! ```text
//!  plugin.toml ─► component, size ─► compile (parses and validates everything first) ─► imports: only what a gate may
//!   ─► exports = hooks of the manifest ─► link ─► scratch instance: types, lifecycle.init ─► Plugin
//! ```

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, InstancePre};

use super::bindings::lifecycle::HandlesLifecycleIndices;
use super::componentize::{Kind, kind};
use super::engine::{GateEngine, Guest};
use super::hook::Hook;
use super::hooks::Exports;
use super::manifest::{CONTRACT, Config, MAX_MANIFEST, Manifest, Registration};
use super::problem::{PluginError, PluginProblem};
use super::state::State;

/// Most bytes of a component.
const MAX_COMPONENT: u64 = 32 * 1024 * 1024;
/// Most bytes of a plugin's configuration.
const MAX_CONFIG: u64 = 1024 * 1024;
/// Time for `lifecycle.init`.
const INIT_BUDGET: Duration = Duration::from_secs(5);
/// Package of the contract, as it begins the names of its interfaces.
const PACKAGE: &str = "ostler:hooks/";
/// Interfaces of the contract that a gate may import.
const GRANTED: [&str; 3] = ["types", "log", "config"];
/// Packages of WASI 0.2 that are there and deny everything.
const DENYING_WASI: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// Where a plugin is.
#[derive(Clone, Debug)]
pub enum PluginSource {
    /// A folder with a `plugin.toml`, such a file itself, or a `.wasm` file with a `plugin.toml` beside it.
    Path(PathBuf),
    /// A plugin that the host carries in itself.
    Embedded {
        /// Text of its `plugin.toml`.
        manifest: String,
        /// Its component.
        component: Vec<u8>,
        /// Its configuration, in place of what the manifest says.
        config: Option<String>,
    },
}

/// A plugin that can be asked.
pub(super) struct Plugin {
    /// What a call needs.
    pub(super) guest: Guest,
    /// The hooks that it handles.
    pub(super) exports: Exports,
    /// Where and how it takes part.
    pub(super) hooks: Vec<Registration>,
    /// Its version.
    pub(super) version: String,
    /// `sha256:` and the digest of its component.
    pub(super) digest: String,
}

/// Everything of a plugin that was read and not yet looked at.
pub struct Package {
    /// Its manifest.
    pub(super) manifest: Manifest,
    component: Vec<u8>,
    config: String,
}

/// Reads all files of a plugin. Blocks on the disk.
pub(super) fn read(source: PluginSource) -> Result<Package, PluginError> {
    match source {
        PluginSource::Path(path) => {
            let wasm = path.extension().is_some_and(|extension| extension == "wasm");
            let manifest_path = match path.is_dir() {
                true => path.join("plugin.toml"),
                false if wasm => path.with_file_name("plugin.toml"),
                false => path.clone(),
            };
            let failed = |problem| PluginError { plugin: path.display().to_string(), problem };
            let text = read_text("manifest", &manifest_path, MAX_MANIFEST).map_err(failed)?;
            let manifest = Manifest::parse(&text).map_err(|error| failed(error.into()))?;
            let module = if wasm { path.clone() } else { manifest_path.with_file_name(&manifest.module) };
            let named = |problem| PluginError { plugin: format!("`{}`", manifest.id), problem };
            let component = read_bytes("component", &module, MAX_COMPONENT).map_err(named)?;
            let config = match &manifest.config {
                Config::Inline(text) => text.clone(),
                Config::File(name) => {
                    read_text("configuration", &manifest_path.with_file_name(name), MAX_CONFIG).map_err(named)?
                }
            };
            Ok(Package { manifest, component, config })
        }
        PluginSource::Embedded { manifest, component, config } => {
            let failed = |problem| PluginError { plugin: "(embedded)".to_owned(), problem };
            let manifest = Manifest::parse(&manifest).map_err(|error| failed(error.into()))?;
            if u64::try_from(component.len()).is_ok_and(|bytes| bytes > MAX_COMPONENT) {
                return Err(failed(PluginProblem::TooLarge { what: "component", limit: MAX_COMPONENT }));
            }
            let config = match (config, &manifest.config) {
                (Some(text), _) => text,
                (None, Config::Inline(text)) => text.clone(),
                (None, Config::File(name)) => {
                    let source = std::io::Error::from(std::io::ErrorKind::NotFound);
                    return Err(failed(PluginProblem::Read { path: PathBuf::from(name), source }));
                }
            };
            Ok(Package { manifest, component, config })
        }
    }
}

fn read_bytes(what: &'static str, path: &Path, limit: u64) -> Result<Vec<u8>, PluginProblem> {
    let failed = |source| PluginProblem::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file at the limit from one beyond it, whatever its metadata says.
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|read| read > limit) {
        return Err(PluginProblem::TooLarge { what, limit });
    }
    Ok(bytes)
}

fn read_text(what: &'static str, path: &Path, limit: u64) -> Result<String, PluginProblem> {
    let bytes = read_bytes(what, path, limit)?;
    String::from_utf8(bytes).map_err(|_| PluginProblem::NotText { path: path.to_owned() })
}

/// Compiles, checks and starts a plugin once.
pub(super) async fn load(engine: &Arc<GateEngine>, package: Package) -> Result<Plugin, PluginError> {
    let id = package.manifest.id.clone();
    check_and_start(engine, package).await.map_err(|problem| PluginError { plugin: format!("`{id}`"), problem })
}

async fn check_and_start(engine: &Arc<GateEngine>, package: Package) -> Result<Plugin, PluginProblem> {
    let Package { manifest, component, config } = package;
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&component)));
    let compiler = Arc::clone(engine);
    // Compiling takes tens of milliseconds for a small plugin and seconds for a large one.
    let component = tokio::task::spawn_blocking(move || compile(&compiler, &component))
        .await
        .map_err(|source| PluginProblem::Invalid { source: source.into() })??;
    check_imports(engine, &component)?;
    check_exports(engine, &component)?;
    let pre =
        engine.link(&component).map_err(|source| PluginProblem::Link { source: source.into_boxed_dyn_error() })?;
    let exports = Exports::find(&pre);
    match_hooks(&manifest, &exports)?;
    let guest = Guest { id: Arc::from(manifest.id), config: Arc::from(config), pre };
    start(engine, &guest, &exports).await?;
    Ok(Plugin { guest, exports, hooks: manifest.hooks, version: manifest.version, digest })
}

fn compile(engine: &GateEngine, bytes: &[u8]) -> Result<Component, PluginProblem> {
    match kind(bytes) {
        Kind::Component => {}
        Kind::Core => return Err(PluginProblem::CoreModule),
        Kind::Foreign => return Err(PluginProblem::NotWasm),
    }
    Component::from_binary(engine.engine(), bytes)
        .map_err(|source| PluginProblem::Invalid { source: source.into_boxed_dyn_error() })
}

/// Name of an interface of the contract, without its version, where it is of the version that this host speaks.
fn of_contract(name: &str) -> Option<&str> {
    let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
    let minor = version.strip_prefix(CONTRACT)?;
    minor.starts_with('.').then_some(interface)
}

fn check_imports(engine: &GateEngine, component: &Component) -> Result<(), PluginProblem> {
    let granted = |name: &str| {
        of_contract(name).is_some_and(|interface| GRANTED.contains(&interface))
            || (name.contains("@0.2.") && DENYING_WASI.iter().any(|package| name.starts_with(package)))
    };
    let component_type = component.component_type();
    let names: Vec<_> = component_type
        .imports(engine.engine())
        .map(|(name, _)| name)
        .filter(|name| !granted(name))
        .map(|name| format!("`{name}`"))
        .collect();
    if names.is_empty() { Ok(()) } else { Err(PluginProblem::Imports { names }) }
}

/// Exports of other packages are none of our business; an export of ours that we do not know would never be called.
fn check_exports(engine: &GateEngine, component: &Component) -> Result<(), PluginProblem> {
    let known: BTreeSet<_> = Hook::ALL.map(Hook::interface).into_iter().chain(["lifecycle".to_owned()]).collect();
    let component_type = component.component_type();
    let names: Vec<_> = component_type
        .exports(engine.engine())
        .map(|(name, _)| name)
        .filter(|name| name.starts_with(PACKAGE))
        .filter(|name| !of_contract(name).is_some_and(|interface| known.contains(interface)))
        .map(|name| format!("`{name}`"))
        .collect();
    if names.is_empty() { Ok(()) } else { Err(PluginProblem::UnknownExports { names }) }
}

fn match_hooks(manifest: &Manifest, exports: &Exports) -> Result<(), PluginProblem> {
    let named = |hook: &Hook| manifest.hooks.iter().any(|registration| registration.hook == *hook);
    if let Some(hook) = Hook::ALL.into_iter().find(|hook| named(hook) && !exports.has(*hook)) {
        return Err(PluginProblem::NotExported { hook });
    }
    match Hook::ALL.into_iter().find(|hook| exports.has(*hook) && !named(hook)) {
        Some(hook) => Err(PluginProblem::NotInManifest { hook }),
        None => Ok(()),
    }
}

/// Starts a plugin once: its hooks must have the types of the contract, and its `init` must agree.
async fn start(engine: &GateEngine, guest: &Guest, exports: &Exports) -> Result<(), PluginProblem> {
    let lifecycle = lifecycle(&guest.pre);
    let exports = exports.clone();
    let body = async move |store: &mut wasmtime::Store<State>, instance: &wasmtime::component::Instance| {
        if let Err(shape) = exports.type_check(store, instance) {
            return Ok(Err(PluginProblem::Shape(shape)));
        }
        let Some(lifecycle) = lifecycle else { return Ok(Ok(())) };
        let world = lifecycle.load(&mut *store, instance)?;
        let agreed = world.ostler_hooks_lifecycle().call_init(store).await?;
        Ok(agreed.map_err(|message| PluginProblem::Refused { message }))
    };
    engine.run(guest.clone(), INIT_BUDGET, body).await.map_err(|source| PluginProblem::Start { source })?
}

fn lifecycle(pre: &InstancePre<State>) -> Option<HandlesLifecycleIndices> {
    HandlesLifecycleIndices::new(pre).ok()
}
