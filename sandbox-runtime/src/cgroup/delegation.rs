//! Which control groups an ordinary user has.
//!
//! ```text
//! a group that was given to the user, with the launcher in it      <own>
//! the processes that were started in it, the launcher's too        <own>/ostler-host
//! sandboxes                                                        <own>/ostler-<tag>/<id>
//! ```
//!
//! The kernel gives controllers to the groups below one only where no process is in the group itself, so the processes move
//! down first. Nothing outside the group is touched.
//!
//! Source: Documentation/admin-guide/cgroup-v2.rst of the kernel, "Delegation" and "No Internal Process Constraint".

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::{CONTROLLERS, Cgroups, DEVICES, Hierarchy, write};

/// Where the processes go that were in the delegated group.
const OWN: &str = "ostler-host";

/// Of the hierarchies only those in which this process may make groups, from its own group on.
pub(super) fn only_delegated(found: Cgroups) -> Cgroups {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let unified = found.unified.and_then(|hierarchy| {
        let root = own_group(&hierarchy.root, path_of(&own, |controllers| controllers.is_empty())?)?;
        let list = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        Some(Hierarchy { root, controllers: list.split_whitespace().map(str::to_owned).collect() })
    });
    let legacy = found.legacy.into_iter().filter_map(|hierarchy| {
        let is_it = |names: &str| names.split(',').any(|name| hierarchy.controllers.iter().any(|known| known == name));
        let root = own_group(&hierarchy.root, path_of(&own, is_it)?)?;
        // Only root of the machine may say which devices can be opened.
        let controllers = hierarchy.controllers.into_iter().filter(|name| name != DEVICES).collect();
        Some(Hierarchy { root, controllers })
    });
    let legacy = legacy.filter(Hierarchy::is_used).collect();
    Cgroups { parent: found.parent, unified, legacy }
}

/// The path in the line of `/proc/self/cgroup` whose controllers are the wanted ones.
fn path_of(own: &str, is_wanted: impl Fn(&str) -> bool) -> Option<&str> {
    own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        is_wanted(controllers).then_some(path)
    })
}

/// The group, if this process may make groups in it.
fn own_group(root: &Path, path: &str) -> Option<PathBuf> {
    let group = root.join(path.trim_start_matches('/'));
    // Started by an earlier launcher, or by what one had moved.
    let group = if group.ends_with(OWN) { group.parent()?.to_owned() } else { group };
    let may = |path: &Path| access(path, Access::WRITE_OK).is_ok();
    (may(&group) && may(&group.join("cgroup.procs"))).then_some(group)
}

impl Cgroups {
    /// Makes room for controllers in a delegated group of the unified tree. Where that fails there are none: groups then only
    /// serve to end what is in them.
    pub(crate) fn move_down(&mut self) {
        let Some(unified) = &mut self.unified else { return };
        if CONTROLLERS.iter().any(|controller| unified.has(controller)) && move_processes(&unified.root).is_err() {
            unified.controllers.clear();
        }
    }
}

fn move_processes(group: &Path) -> std::io::Result<()> {
    let target = group.join(OWN);
    match fs::create_dir(&target) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for pid in fs::read_to_string(group.join("cgroup.procs"))?.lines() {
        match write(&target.join("cgroup.procs"), pid) {
            // It has ended meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            moved => moved?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN_GROUPS: &str = "9:memory:/user/a\n4:cpu,cpuacct:/user/b\n1:name=systemd:/\n0::/user/scope\n";

    #[test]
    fn the_own_group_is_read_by_hierarchy() {
        assert_eq!(path_of(OWN_GROUPS, str::is_empty), Some("/user/scope"));
        assert_eq!(path_of(OWN_GROUPS, |names| names.split(',').any(|name| name == "cpu")), Some("/user/b"));
        assert_eq!(path_of(OWN_GROUPS, |names| names == "pids"), None);
    }

    #[test]
    fn the_processes_of_a_delegated_group_move_down_before_controllers_are_given() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.procs"), "7\n").unwrap();
        fs::create_dir(root.path().join(OWN)).unwrap();
        fs::write(root.path().join(OWN).join("cgroup.procs"), "").unwrap();
        let hierarchy = |controllers: &[&str]| Hierarchy {
            root: root.path().to_owned(),
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
        };
        let mut groups =
            Cgroups { parent: "t".into(), unified: Some(hierarchy(&["memory", "pids"])), legacy: Vec::new() };
        groups.move_down();
        assert_eq!(fs::read_to_string(root.path().join(OWN).join("cgroup.procs")).unwrap(), "7");
        assert!(groups.has("memory"));
        // Where nobody can be moved, the group is still there to end what is in it.
        fs::remove_dir_all(root.path().join(OWN)).unwrap();
        fs::write(root.path().join(OWN), "").unwrap();
        groups.move_down();
        assert!(!groups.has("memory") && groups.can_end());
    }
}
