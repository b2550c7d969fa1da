//! Sandboxes in which git works on one repository of the forge.
//!
//! ```text
//! OpenRepository ─► a name, checked ─► made like every sandbox ─► Living ─► destroyed, dead, or its host gone ─► nothing left
//! ```
//!
//! The host names a repository and nothing more: which folder the forge is and whose it is are the launcher's own
//! configuration. Such a sandbox belongs to the connection that asked for it and is never handed to another: the next host
//! gets none before all of the last one's are gone.

use std::time::Duration;

use ostler_wire::launcher::{Files, Limits, RepositoryAccess};
use ostler_wire::{Failure, FailureKind};

use super::sandboxes::{Because, Phase, Purpose, RequestKey};
use super::state::Launcher;
use crate::standing::Standing;
use crate::step::failure;
use crate::worker::Repository;

/// Longest name of a repository, in bytes.
const LONGEST: usize = 100;

impl Launcher {
    pub(super) fn open_repository(
        &mut self,
        request: RequestKey,
        sandbox: String,
        name: &str,
        access: RepositoryAccess,
        limits: Limits,
        wait: Duration,
    ) {
        match self.repository(name, access) {
            Ok(repository) => self.create(request, sandbox, Purpose::Git(repository), limits, wait),
            Err(refused) => self.reply(request, Err(refused)),
        }
    }

    fn repository(&self, name: &str, access: RepositoryAccess) -> Result<Repository, Failure> {
        check_name(name)?;
        let config = &self.config;
        let refuse = |kind, words: &str| Err(failure(kind, "open repository", words));
        let Some(forge) = &config.forge else {
            return refuse(FailureKind::NotFound, "this launcher was started without a forge");
        };
        // In a user namespace root is the user who started all this, and as harmless.
        let is_root = config.host_uid == 0 || config.host_gid == 0;
        if is_root && Standing::of_this_process() == Standing::Machine {
            return refuse(FailureKind::Invalid, "the forge belongs to root, in whose name nothing runs in a sandbox");
        }
        Ok(Repository {
            forge: forge.clone(),
            folder: format!("{name}.git"),
            access,
            uid: config.host_uid,
            gid: config.host_gid,
        })
    }

    /// Whether something of a sandbox is left that served another host.
    pub(super) fn has_service_of_another(&self, link: u64) -> bool {
        self.sandboxes.values().any(|sandbox| sandbox.service_of.is_some_and(|of| of != link))
    }

    /// Ends every sandbox that served the host that is gone.
    pub(super) fn end_services(&mut self) {
        let living = |sandbox: &super::sandboxes::Sandbox| matches!(sandbox.phase, Phase::Living);
        let services: Vec<String> = self
            .sandboxes
            .iter()
            .filter(|(_, sandbox)| sandbox.service_of.is_some() && living(sandbox))
            .map(|(id, _)| id.clone())
            .collect();
        for id in services {
            self.end(&id, Because::Asked, Files::Remove);
        }
    }
}

/// As the forge names its repositories: nothing that leads to another folder.
fn check_name(name: &str) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = (1..=LONGEST).contains(&name.len())
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'));
    if good {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    let words =
        format!("{shown:?} is no name of a repository: a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit");
    Err(failure(FailureKind::Invalid, "open repository", words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_no_other_folder() {
        for name in ["demo", "0", "a.b_c-d"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "../x", "a/b", "/etc", ".new-x", "-x", "A", "a b", "a\0", &"a".repeat(101)] {
            assert_eq!(check_name(name).unwrap_err().kind, FailureKind::Invalid, "{name:?}");
        }
    }
}
