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
        if !CONTROLLERS.iter().any(|controller| unified.has(controller)) {
            return;
        }
        let made_room = match is_given(&unified.root) {
            true => move_processes(&unified.root).is_ok() && unified.may_give(),
            // Others live in it, who were not asked.
            false => false,
        };
        if !made_room {
            unified.controllers.clear();
        }
    }
}

/// Whether the group was given away for good (systemd says so in an attribute), or nobody lives in it but this launcher and who
/// started it.
fn is_given(group: &Path) -> bool {
    let mut value = [0; 8];
    let said = rustix::fs::getxattr(group, "user.delegate", &mut value).is_ok_and(|length| value[..length] == *b"1");
    let own = [Some(rustix::process::getpid()), rustix::process::getppid()];
    let is_own = |pid: &str| own.iter().flatten().any(|own| own.as_raw_nonzero().to_string() == pid);
    said || fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|list| list.lines().all(is_own))
}

impl Hierarchy {
    /// Whether groups below can have the controllers that set limits.
    fn may_give(&self) -> bool {
        let all = CONTROLLERS.iter().filter(|controller| self.has(controller));
        all.into_iter()
            .all(|controller| write(&self.root.join("cgroup.subtree_control"), &format!("+{controller}")).is_ok())
    }
}

/// Most rounds of moving: a process that forks meanwhile has its child where it was itself.
const ROUNDS: usize = 20;

fn move_processes(group: &Path) -> std::io::Result<()> {
    let target = group.join(OWN);
    match fs::create_dir(&target) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for _ in 0..ROUNDS {
        let list = fs::read_to_string(group.join("cgroup.procs"))?;
        if list.is_empty() {
            return Ok(());
        }
        for pid in list.lines() {
            match write(&target.join("cgroup.procs"), pid) {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                moved => moved?,
            }
        }
    }
    Err(std::io::ErrorKind::ResourceBusy.into())
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
    fn controllers_are_had_where_a_group_is_given_away_and_room_can_be_made_in_it() {
        let root = tempfile::tempdir().unwrap();
        let moved = root.path().join(OWN).join("cgroup.procs");
        fs::create_dir(root.path().join(OWN)).unwrap();
        fs::write(&moved, "").unwrap();
        fs::write(root.path().join("cgroup.subtree_control"), "").unwrap();
        let have_controllers = |processes: &str| {
            fs::write(root.path().join("cgroup.procs"), processes).unwrap();
            let controllers = ["memory", "pids"].map(str::to_owned).into();
            let unified = Some(Hierarchy { root: root.path().to_owned(), controllers });
            let mut groups = Cgroups { parent: "t".into(), unified, legacy: Vec::new() };
            groups.move_down();
            assert!(groups.can_end(), "to end what is in it, a group serves anyway");
            groups.has("memory")
        };
        assert!(have_controllers(""));
        assert!(!have_controllers("7\n"), "somebody else lives in it");
        assert_eq!(fs::read_to_string(&moved).unwrap(), "", "and is not moved");
        rustix::fs::setxattr(root.path(), "user.delegate", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        // Plain files stay as they are: whoever was to be moved is there again and again.
        assert!(!have_controllers("7\n"), "it cannot be emptied");
        assert_eq!(fs::read_to_string(&moved).unwrap(), "7");
    }
}
