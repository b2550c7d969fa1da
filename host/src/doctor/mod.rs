//! `ostler doctor`: can this machine run a host, and is the one well that runs?
//!
//! ```text
//!  inputs ─► facts (gathered at once, each group with a deadline) ─► judgement (pure) ─► findings ─► report
//!                 │
//!                 └─ probe: this program once more, without threads, in which the launcher's own code is tried
//! ```
//!
//! One file per group: gathering and judging stand apart, so that every state of every check is tested without a broken
//! machine. Owns ids, order and words. Changes nothing, asks nobody at the terminal, works without root and without a
//! host: what it cannot look at is skipped, and says why. Numbers and probes are those of the code that needs them.

mod catalogue;
mod context;
mod finding;

mod configuration;

mod probe;

mod cgroups;
mod holes;
mod kernel;

mod data;
mod disk;
mod images;
mod plugins;
mod programs;
mod rights;

mod clock;
mod host;
mod models;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use self::context::{Attempts, Chosen, Looker, existing};
use self::finding::Finding;
use crate::app::Layout;
use crate::config::Loaded;
use crate::telemetry::chain;

pub use catalogue::{ENTRIES, Entry, Group};
pub use context::{Inputs, Network};
pub use finding::{Check, Report, State, Summary};
pub use probe::VERB as PROBE_VERB;

/// Time for one group. All are looked at at the same time, so that this is about how long it takes at most.
const PATIENCE: Duration = Duration::from_secs(13);

/// Looks at everything.
pub async fn examine(inputs: Inputs) -> Report {
    let looker = if crate::app::is_root() { Looker::Root } else { Looker::Another };
    let Inputs { configuration, program, network } = inputs;
    let mut checks = configuration::judge(&configuration, looker);
    let chosen = configuration.ok().map(choose);
    let chosen = match &chosen {
        Some(Ok(chosen)) => Some(chosen),
        Some(Err(found)) => {
            checks.push(found.clone());
            None
        }
        None => None,
    };
    if chosen.is_none() {
        checks.extend(without_configuration());
    }
    let limits = chosen.map(|chosen| crate::workspace::limits(chosen.host.limits));
    let data = chosen.map_or_else(std::env::temp_dir, |chosen| chosen.layout.data().to_owned());
    let listen = chosen.map(|chosen| chosen.host.listen);
    let (tried, rights, programs, host, files, models) = tokio::join!(
        within(PATIENCE, &["kernel.", "control_groups."], async {
            let place = tokio::task::spawn_blocking(move || existing(&data).to_owned()).await.unwrap_or_default();
            let attempts = probe::examine(&program, place, limits, looker).await;
            blocking(move || of_kernel(&attempts, looker)).await
        }),
        within(PATIENCE, &["rights."], blocking(move || rights::examine(looker))),
        within(PATIENCE, &["programs."], programs::examine()),
        within(PATIENCE, &["host."], host::examine(listen, looker)),
        of_files(chosen, looker),
        of_models(chosen, &program, network, looker),
    );
    checks.extend([tried, rights, programs, host, files, models].into_iter().flatten());
    Report::new(checks)
}

/// What follows from the configuration, or why nothing does.
fn choose(loaded: Loaded) -> Result<Chosen, Check> {
    // Where a host says where it is depends on who starts it; nothing here looks at it.
    let (host, key_problems) = loaded.host_without_keys(PathBuf::from("/")).map_err(|error| {
        Finding::failed(chain(&error), "this is a defect of Ostler; please report it").of("configuration.file")
    })?;
    let layout = Layout::at(&host.data).map_err(|error| {
        Finding::failed(chain(&error), error.public.hint.unwrap_or_default()).about("configuration.file", "host.data")
    })?;
    Ok(Chosen { host, loaded, key_problems, layout })
}

fn of_kernel(attempts: &Attempts, looker: Looker) -> Vec<Check> {
    [kernel::examine(attempts, looker), cgroups::examine(attempts, looker)].concat()
}

/// Disk, data, images and plugins.
async fn of_files(chosen: Option<&Chosen>, looker: Looker) -> Vec<Check> {
    let Some(chosen) = chosen else { return Vec::new() };
    let (layout, image) = (chosen.layout.clone(), chosen.host.image.clone());
    let (disk, data, images) = (layout.clone(), layout.clone(), layout);
    let (disk, data, images, plugins) = tokio::join!(
        within(PATIENCE, &["disk."], blocking(move || disk::examine(disk.data(), looker))),
        within(PATIENCE, &["data."], blocking(move || data::examine(&data, looker))),
        within(
            PATIENCE,
            &["images."],
            blocking(move || images::examine(&images.store(), images.data(), &image, looker))
        ),
        within(PATIENCE, &["plugins."], plugins::examine(&chosen.host.plugins, looker)),
    );
    [disk, data, images, plugins].concat()
}

/// Models, and the clock, which is compared with theirs.
async fn of_models(chosen: Option<&Chosen>, program: &std::path::Path, network: Network, looker: Looker) -> Vec<Check> {
    within(PATIENCE, &["models.", "clock."], async {
        let (mut checks, answers) = match chosen {
            Some(chosen) => models::examine(chosen, network, looker).await,
            None => (Vec::new(), Vec::new()),
        };
        let index = chosen.map(|chosen| chosen.layout.index());
        checks.extend(clock::examine(program, index.as_deref(), &answers, network));
        checks
    })
    .await
}

/// What depends on a configuration that cannot be used.
fn without_configuration() -> Vec<Check> {
    let groups = [Group::Disk, Group::Data, Group::Images, Group::Plugins, Group::Models];
    let entries = ENTRIES.iter().filter(|entry| groups.contains(&entry.group) || entry.id == "host.port");
    entries.map(|entry| Finding::skipped("the configuration cannot be used, see above").of(entry.id)).collect()
}

/// Runs what may block where it may.
async fn blocking(work: impl FnOnce() -> Vec<Check> + Send + 'static) -> Vec<Check> {
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

/// The checks of some groups, or that they took too long: a disk that does not answer must not hold up the rest.
async fn within(patience: Duration, groups: &[&str], work: impl Future<Output = Vec<Check>>) -> Vec<Check> {
    match tokio::time::timeout(patience, work).await {
        Ok(checks) => checks,
        Err(_) => {
            let of = |entry: &&Entry| groups.iter().any(|group| entry.id.starts_with(group));
            ENTRIES.iter().filter(of).map(|entry| too_long().of(entry.id)).collect()
        }
    }
}

fn too_long() -> Finding {
    Finding::failed(
        format!("no answer within {} s", PATIENCE.as_secs()),
        "look for a disk or server that hangs; the kernel's log may say more",
    )
}
