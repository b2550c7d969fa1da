//! What a launcher finds of one before it that did not end by itself.
//!
//! Mounts and namespaces are gone with the last process, so killing what is in the control groups ends
//! everything. Files with a record are kept. Without one an empty tree was half-made and is removed; one that may hold
//! somebody's work, and one whose record cannot be right, are set aside in `lost/`, for a person to look at.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ostler_wire::{Failure, FailureKind};

use super::files::{remove_in_child, set_aside};
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
                if leases.adopt(record.ids()) {
                    kept.insert(name, record);
                    continue;
                }
                format!("its uids from {} are not free or none of ours", record.ids().base)
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

fn names(directory: &Path) -> Result<Vec<String>, Failure> {
    let entries = fs::read_dir(directory).step("list", || directory.display().to_string())?;
    Ok(entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
