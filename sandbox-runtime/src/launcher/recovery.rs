//! What a launcher finds of one before it that did not end by itself.
//!
//! Mounts and namespaces are gone with the last process, so killing what is in the control groups ends
//! everything. Files with a record are kept; what has none, or lies in the trash, was half-made and is removed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ostler_wire::{Failure, FailureKind};

use super::ending::remove_in_child;
use super::leases::Leases;
use super::starting::check_id;
use super::state::log;
use crate::cgroup::{Cgroups, Removal};
use crate::step::{Step, failure};
use crate::store::Store;
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
        match Record::read(&place)? {
            Some(record) if record.sandbox == name && check_id(&name).is_ok() => {
                if !leases.adopt(record.uid_base) {
                    log(&format!("{name}: its uids from {} belong to another sandbox too", record.uid_base));
                }
                kept.insert(name, record);
            }
            _ => {
                log(&format!("removing half-made files of {name}"));
                let trash = store.trash().join(&name);
                fs::rename(&place, &trash).step("move to trash", || place.display().to_string())?;
            }
        }
    }
    for name in names(&store.trash())? {
        // Reaped by the loop like every child; what fails is tried again by the next launcher.
        remove_in_child(&store.trash().join(name))?;
    }
    Ok(kept)
}

fn names(directory: &Path) -> Result<Vec<String>, Failure> {
    let entries = fs::read_dir(directory).step("list", || directory.display().to_string())?;
    Ok(entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
