//! On what rights sandboxes are made: those of the machine's root, or those of an ordinary user.
//!
//! ```text
//! root of the machine       idmapped layers, control groups, 32,768 ranges of uids
//! ordinary user ── unshare, newuidmap ──► root of a user namespace of its own, in which all else goes on as above,
//!                                         with the ids that /etc/subuid gives the user and what the kernel allows there
//! ```
//!
//! This module owns the difference: finding it out, and becoming root of one's own namespace. What is done without is decided
//! where it is done.

mod enter;
mod ids;

use std::sync::OnceLock;

use ostler_wire::Failure;

use crate::ids::Range;
use crate::launcher::Block;
use crate::step::Step;

pub(crate) use enter::enter;
pub(crate) use ids::goes_on;

/// Which rights this process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Those of the machine's root.
    Machine,
    /// Those of root in a user namespace: of an ordinary user, or in a container.
    Namespace,
}

/// Where the kernel tells which ids a process has.
const UID_MAP: &str = "/proc/self/uid_map";
const GID_MAP: &str = "/proc/self/gid_map";

impl Standing {
    /// That of this process, which is root in its namespace.
    #[must_use]
    pub fn of_this_process() -> Self {
        // It is the same for the whole life of a process that has become what it is to be.
        static FOUND: OnceLock<Standing> = OnceLock::new();
        *FOUND.get_or_init(|| match std::fs::read_to_string(UID_MAP) {
            Ok(map) if !ids::is_everything(&map) => Self::Namespace,
            _ => Self::Machine,
        })
    }

    /// Whether the files of a disk can be shown with other ids.
    pub(crate) fn can_map_mounts(self) -> bool {
        self == Self::Machine
    }
}

/// The ids of this user namespace.
pub(crate) struct Own {
    /// Those that sandboxes are given, as they are shared out.
    pub(crate) blocks: Vec<Block>,
    /// All that are both a uid and a gid, in pieces that can be mapped.
    pub(crate) ids: Vec<Range>,
}

/// The ids that sandboxes may have in this user namespace.
pub(crate) fn own_ids() -> Result<Own, Failure> {
    let [uids, gids] = maps()?;
    let ids = ids::both(&uids, &gids);
    Ok(Own { blocks: ids::blocks(&ids)?, ids })
}

/// The maps of uids and of gids of this process, as the kernel shows them.
pub(crate) fn maps() -> Result<[String; 2], Failure> {
    let read = |path: &str| std::fs::read_to_string(path).step("read id map", || path.to_owned());
    Ok([read(UID_MAP)?, read(GID_MAP)?])
}

/// What an ordinary user's launcher would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Sandboxes with files, of sessions that live or were stopped, at one time.
    pub sandboxes: u32,
    /// Uids and gids of each.
    pub ids: u32,
}

/// Whether an ordinary user may become root of a namespace of its own, as far as can be told without doing so, and what there is
/// room for.
///
/// # Errors
/// The reason why not, with what to do about it.
pub fn can_enter() -> Result<Room, Failure> {
    let blocks = enter::plan()?.blocks()?;
    let ids = blocks.first().map_or(0, |block| block.size);
    Ok(Room { sandboxes: blocks.iter().map(|block| block.ranges).sum(), ids })
}

/// Becomes root of a user namespace of one's own, where the process is not root. Must be called while it has one thread.
///
/// # Errors
/// When the machine does not allow it; the detail says what to do.
pub fn become_root() -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { enter() }
}
