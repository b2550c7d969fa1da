//! What a launcher finds of one before it that did not end by itself.
//!
//! Mounts and namespaces are gone with the last process, so killing what is in the control groups ends
//! everything. Files with a record are kept. Without one an empty tree was half-made and is removed; one that may hold
//! somebody's work, and one whose record cannot be right, are set aside in `lost/`, for a person to look at.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ostler_wire::{Failure, FailureKind};

use super::ending::remove_in_child;
use super::leases::Leases;
use super::starting::check_id;
use super::state::log;
use crate::cgroup::{Cgroups, Removal};
use crate::step::{Step, failure};
use crate::store::Store;
use crate::worker::UPPER;
use crate::worker::record::Record;

/// Time in which killed processes must be gone.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Ends the processes of a predecessor and takes their control groups away.
pub(super) fn end_leftovers(cgroups: &Cgroups) -> Result<(), Failure> {
    let leftovers = cgroups.leftovers();
    if !leftovers.is_empty() {
        log(&format!("ending what an earlier launcher left: {}", leftovers.join(", ")));
    }
    let until = Instant::now() + PATIENCE;
    for id in leftovers {
        while cgroups.is_populated(&id) || cgroups.remove(&id)? == Removal::Busy {
            cgroups.kill(&id)?;
            if Instant::now() > until {
                return Err(failure(FailureKind::Limit, "end leftovers", format!("processes of {id} do not end")));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
    cgroups.remove_parents();
    Ok(())
}

/// Reads the records of kept files and leases their uids. Half-made files are removed in the background.
pub(super) fn find_kept(store: &Store, leases: &mut Leases) -> Result<BTreeMap<String, Record>, Failure> {
    let mut kept = BTreeMap::new();
    for name in names(&store.sandboxes())? {
        let place = store.sandbox(&name);
        let reason = match Record::read(&place) {
            Ok(Some(record)) if record.sandbox != name || check_id(&name).is_err() => {
                "its record is another's".to_owned()
            }
            Ok(Some(record)) => {
                if leases.adopt(record.uid_base) {
                    kept.insert(name, record);
                    continue;
                }
                format!("its uids from {} are not free or none of ours", record.uid_base)
            }
            Ok(None) if is_empty(&place.join(UPPER)) => {
                log(&format!("removing half-made files of {name}"));
                set_aside(&place, &store.trash(), &name)?;
                continue;
            }
            Ok(None) => "its record is missing or torn".to_owned(),
            Err(failed) => failed.to_string(),
        };
        log(&format!("{name}: {reason}; its files are in {}", store.lost().display()));
        set_aside(&place, &store.lost(), &name)?;
    }
    for name in names(&store.trash())? {
        // Reaped by the loop like every child; what fails is tried again by the next launcher.
        remove_in_child(&store.trash().join(name))?;
    }
    Ok(kept)
}

/// Whether nothing was ever written there.
fn is_empty(upper: &Path) -> bool {
    fs::read_dir(upper).map_or(true, |mut entries| entries.next().is_none())
}

/// Moves a tree into another directory of the store, under a name that nothing there has.
pub(super) fn set_aside(place: &Path, into: &Path, name: &str) -> Result<PathBuf, Failure> {
    let shown = || format!("{} to {}", place.display(), into.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(into).step("make directory", shown)?;
    let free = (0_u32..).map(|number| into.join(format!("{name}.{number}"))).find(|path| !path.exists());
    let target = free.unwrap_or_else(|| into.join(name));
    fs::rename(place, &target).step("move files", shown)?;
    Ok(target)
}

fn names(directory: &Path) -> Result<Vec<String>, Failure> {
    let entries = fs::read_dir(directory).step("list", || directory.display().to_string())?;
    Ok(entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
