//! Where the host's state lies and who owns it.
//!
//! ```text
//! data/            root 0755   all of it the user's own where that is not root
//!   token          ostler 0600   API token
//!   sessions/      ostler 0700   a log per session
//!   index/         ostler 0700   the index over them
//!   blobs/         ostler 0700   large outputs
//!   log/           ostler 0750   the log, as JSON lines
//!   repositories/  ostler 0700   bare repositories of the built-in forge
//!   store/         root 0711     images, layers, the sandboxes' files (see the launcher)
//!   launcher/      root 0700     the launcher's lock and log
//!   run/           root 0755     the launcher's socket
//! ```

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use super::error::AppError;
use super::privileges::User;
use crate::config::TOKEN_FILE;

/// Longest path of a Unix socket, in bytes.
const MAX_SOCKET_PATH: usize = 107;

/// The folders of one host.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    data: PathBuf,
}

impl Layout {
    /// Looks at a data folder without making anything.
    pub(crate) fn at(data: &Path) -> Result<Self, AppError> {
        let data = std::path::absolute(data).map_err(|error| {
            AppError::new(format!("`{}` is no path", data.display()), "give --data a folder").because(error)
        })?;
        let layout = Self { data };
        let socket = layout.launcher_socket();
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            let message = format!("the data folder's path is too long for a socket in it: {}", socket.display());
            return Err(AppError::new(message, "give --data a shorter path"));
        }
        Ok(layout)
    }

    /// Makes the folders that are missing and gives them to their owners.
    pub(super) fn make(&self, user: User) -> Result<(), AppError> {
        self.folder(&self.data, 0o755, None)?;
        if super::is_root() {
            self.reachable()?;
        }
        for path in [self.sessions(), self.index_folder(), self.blobs(), self.repositories()] {
            self.folder(&path, 0o700, Some(user))?;
        }
        self.folder(&self.log(), 0o750, Some(user))?;
        self.folder(&self.launcher_state(), 0o700, None)?;
        self.folder(&self.run(), 0o755, None)
    }

    fn folder(&self, path: &Path, mode: u32, user: Option<User>) -> Result<(), AppError> {
        let failed = |error: std::io::Error| {
            let message = format!("cannot make the folder {}", path.display());
            AppError::new(message, "check the path, its permissions and the room on its disk").because(error)
        };
        fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed)?;
        if let Some(User { uid, gid }) = user {
            chown(path, Some(uid), Some(gid)).map_err(failed)?;
        }
        Ok(())
    }

    /// The host's user must be able to walk to the data folder.
    fn reachable(&self) -> Result<(), AppError> {
        let closed = closed_to_others(&self.data).map_err(|error| {
            let message = format!("cannot look at {}", self.data.display());
            AppError::new(message, "check the path given to --data").because(error)
        })?;
        closed.map_or(Ok(()), |folder| {
            let (user, data) = (super::privileges::USER, self.data.display());
            let message = format!("the host's user `{user}` cannot reach {data}: {} is closed to it", folder.display());
            Err(AppError::new(message, format!("chmod o+x {}, or choose another --data", folder.display())))
        })
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn token(&self) -> PathBuf {
        self.data.join(TOKEN_FILE)
    }

    pub(crate) fn sessions(&self) -> PathBuf {
        self.data.join("sessions")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.data.join("log")
    }

    fn index_folder(&self) -> PathBuf {
        self.data.join("index")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.index_folder().join("index.db")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.data.join("blobs")
    }

    pub(crate) fn repositories(&self) -> PathBuf {
        self.data.join("repositories")
    }

    pub(crate) fn store(&self) -> PathBuf {
        store(&self.data)
    }

    pub(crate) fn launcher_state(&self) -> PathBuf {
        self.data.join("launcher")
    }

    pub(super) fn launcher_log(&self) -> PathBuf {
        self.launcher_state().join("launcher.log")
    }

    fn run(&self) -> PathBuf {
        self.data.join("run")
    }

    pub(super) fn launcher_socket(&self) -> PathBuf {
        self.run().join("launcher.sock")
    }

    /// The launcher's own lock.
    pub(crate) fn launcher_lock(&self) -> PathBuf {
        self.launcher_state().join(ostler_sandbox::launcher::LOCK)
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.launcher_state().join("host.lock")
    }
}

/// The first folder, from `path` upwards, that only its owner and group may walk through.
pub(crate) fn closed_to_others(path: &Path) -> std::io::Result<Option<&Path>> {
    for folder in path.ancestors() {
        if fs::metadata(folder)?.mode() & 0o001 == 0 {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

/// The image store of a data folder.
#[must_use]
pub fn store(data: &Path) -> PathBuf {
    data.join("store")
}
