//! Single defences of a sandbox that a test can leave out, to see that what they stop then gets through: a test of a defence
//! that also passes without it proves nothing.
//!
//! In a build without debug assertions, which is what is installed, no defence can be left out: a launcher that is told to
//! ends with an error, and [`Weakened::lacks`] is always false.

use serde::{Deserialize, Serialize};

/// Something that stands between a sandbox and the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Defence {
    /// The system call filter.
    SystemCallFilter,
    /// No program gives privileges that its caller does not have.
    NoNewPrivileges,
    /// The sandbox's root file system ignores setuid bits and file capabilities.
    NoSuid,
    /// The sandbox's root file system opens no device.
    NoDevices,
    /// Few capabilities; without it there are all of the sandbox's user namespace.
    FewCapabilities,
    /// No capability is inherited.
    NoInheritance,
    /// Files that tell about the machine show nothing.
    MaskedPaths,
    /// Files that steer the machine cannot be written.
    ReadOnlyPaths,
    /// A tree in which a place to be mounted over is a link is refused.
    TreeCheck,
    /// libcontainer is told root's home, so that it does not look it up in the sandbox's files.
    KnownHome,
    /// PID 1 has no descriptor of its maker but its socket; without it, it gets them and a directory of the machine.
    NoForeignDescriptors,
    /// The program of PID 1 is sealed.
    SealedGuest,
    /// What unpacks an archive has a root with nothing in it but the folder to fill.
    OwnRoot,
    /// An IPC namespace of its own.
    OwnIpc,
    /// A network namespace of its own; without it there is no `/sys` either, which the kernel ties to it.
    OwnNetwork,
}

/// The defences that a launcher leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weakened(pub Vec<Defence>);

impl Weakened {
    /// Whether this defence is to be left out.
    pub(crate) fn lacks(&self, defence: Defence) -> bool {
        cfg!(debug_assertions) && self.0.contains(&defence)
    }

    /// Whether nothing is to be left out.
    pub(crate) fn is_nothing(&self) -> bool {
        !cfg!(debug_assertions) || self.0.is_empty()
    }

    /// Whether a build of this kind may run with them.
    pub(crate) fn is_possible(&self, debug_assertions: bool) -> bool {
        debug_assertions || self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_that_is_installed_refuses_to_be_weakened() {
        let weakened = Weakened(vec![Defence::SystemCallFilter]);
        assert!(!weakened.is_possible(false) && weakened.is_possible(true));
        assert!(Weakened::default().is_possible(false));
    }
}
