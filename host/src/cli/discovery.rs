//! Where is the host of this machine? A running host says so in a file, a command reads it.
//!
//! The file is `ostler.json` in the runtime folder: `$OSTLER_RUNTIME_DIR`, else `/run/ostler` for root, else
//! `$XDG_RUNTIME_DIR/ostler`. It holds `{"version":1,"url":"…","token_path":"…"}`, never the token. A reader ignores
//! keys that it does not know and refuses a version that it does not know.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::listener;
use crate::api::{ApiToken, TokenError, load_token};
use crate::config::env;

const FILE: &str = "ostler.json";
const SYSTEM: &str = "/run/ostler";
const VERSION: u16 = 1;

/// Where a host is and what opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Address of the API, such as `http://127.0.0.1:7878`.
    pub url: String,
    /// File with the token.
    pub token_path: PathBuf,
}

#[derive(Deserialize, Serialize)]
struct Stored {
    version: u16,
    url: String,
    token_path: PathBuf,
}

/// What can go wrong with the runtime folder.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// There is no folder to write to.
    #[error("there is no runtime folder: neither `OSTLER_RUNTIME_DIR` nor `XDG_RUNTIME_DIR` is set")]
    NoFolder,
    /// The file could not be written.
    #[error("could not write {path}", path = path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is there and could not be read.
    #[error("could not read {path}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path} does not say where a host is", path = path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The file is of another Ostler.
    #[error("{path} is of version {version}, this ostler knows version {VERSION}", path = path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// What it says.
        version: u16,
    },
}

/// The folder in which a host of this user says where it is.
pub fn runtime_dir() -> Result<PathBuf, DiscoveryError> {
    let root = rustix::process::geteuid().is_root();
    folders(root, |name| std::env::var_os(name)).into_iter().next().ok_or(DiscoveryError::NoFolder)
}

/// Says in `folder` where the host is. Whoever reads sees the old file or the new one, never half of one.
pub fn publish(folder: &Path, location: &Location) -> Result<(), DiscoveryError> {
    let path = folder.join(FILE);
    write(folder, &path, location).map_err(|source| DiscoveryError::Write { path, source })
}

fn write(folder: &Path, path: &Path, location: &Location) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let stored = Stored { version: VERSION, url: location.url.clone(), token_path: location.token_path.clone() };
    let file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&file, &stored)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Takes back what [`publish`] said, unless another host has said something else since.
pub fn withdraw(folder: &Path, location: &Location) -> Result<(), DiscoveryError> {
    let path = folder.join(FILE);
    if read(&path)?.as_ref() != Some(location) {
        return Ok(());
    }
    fs::remove_file(&path).map_err(|source| DiscoveryError::Write { path, source })
}

/// Where the host is, if one said so: first the user's own, then the machine's.
pub fn find() -> Result<Option<Location>, DiscoveryError> {
    let root = rustix::process::geteuid().is_root();
    for folder in folders(root, |name| std::env::var_os(name)) {
        if let Some(location) = read(&folder.join(FILE))? {
            return Ok(Some(location));
        }
    }
    Ok(None)
}

/// Why there is no token for a host that said where it is.
#[derive(Debug)]
pub enum NoToken {
    /// It cannot be read.
    Unreadable(TokenError),
    /// Another user listens there. A host that was killed cannot take back its word.
    Stranger {
        /// The user.
        uid: u32,
    },
}

/// The token of a host, for requests to where it said that it is.
pub fn token(location: &Location) -> Result<ApiToken, NoToken> {
    let token = load_token(&location.token_path).map_err(NoToken::Unreadable)?;
    // A host says where it is by an address, never by a name.
    let address = location.url.strip_prefix("http://").and_then(|url| url.trim_end_matches('/').parse().ok());
    if let (Some(address), Ok(file)) = (address, fs::symlink_metadata(&location.token_path))
        && let Some(uid) = listener::stranger(&listener::listeners(), address, file.uid())
    {
        return Err(NoToken::Stranger { uid });
    }
    Ok(token)
}

fn read(path: &Path) -> Result<Option<Location>, DiscoveryError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DiscoveryError::Read { path: path.to_owned(), source }),
    };
    let stored: Stored =
        serde_json::from_slice(&bytes).map_err(|source| DiscoveryError::Malformed { path: path.to_owned(), source })?;
    if stored.version != VERSION {
        return Err(DiscoveryError::Version { path: path.to_owned(), version: stored.version });
    }
    Ok(Some(Location { url: stored.url, token_path: stored.token_path }))
}

/// The folders to look into, best first; a host writes to the first.
fn folders(root: bool, get: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let set = |name| get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set(env::RUNTIME_DIR) {
        return vec![folder];
    }
    // Root does not look into a folder that another user may own.
    let own = if root { None } else { set(env::XDG_RUNTIME_DIR).map(|folder| folder.join("ostler")) };
    own.into_iter().chain([PathBuf::from(SYSTEM)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(port: u16) -> Location {
        Location { url: format!("http://127.0.0.1:{port}"), token_path: "/var/lib/ostler/token".into() }
    }

    #[test]
    fn what_a_host_says_is_read_back_and_taken_back() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("not/yet");
        publish(&folder, &location(1)).unwrap();
        assert_eq!(read(&folder.join(FILE)).unwrap(), Some(location(1)));
        publish(&folder, &location(2)).unwrap();
        withdraw(&folder, &location(1)).unwrap();
        assert_eq!(read(&folder.join(FILE)).unwrap(), Some(location(2)), "a later host's word stays");
        withdraw(&folder, &location(2)).unwrap();
        assert_eq!(read(&folder.join(FILE)).unwrap(), None);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn another_version_is_not_guessed_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        fs::write(&path, r#"{"version":2,"url":"http://x","token_path":"/x"}"#).unwrap();
        assert!(matches!(read(&path), Err(DiscoveryError::Version { version: 2, .. })));
        fs::write(&path, "{}").unwrap();
        assert!(matches!(read(&path), Err(DiscoveryError::Malformed { .. })));
        fs::write(&path, r#"{"version":1,"url":"http://x","token_path":"/x","later":1}"#).unwrap();
        assert!(read(&path).unwrap().is_some());
    }

    #[test]
    fn root_and_users_have_their_own_folders() {
        let xdg = |name: &str| (name == env::XDG_RUNTIME_DIR).then(|| OsString::from("/run/user/1000"));
        assert_eq!(folders(true, xdg), [Path::new("/run/ostler")]);
        assert_eq!(folders(false, xdg), [Path::new("/run/user/1000/ostler"), Path::new("/run/ostler")]);
        assert_eq!(folders(false, |_| None), [Path::new("/run/ostler")]);
        let own = |name: &str| (name == env::RUNTIME_DIR).then(|| OsString::from("/tmp/x"));
        assert_eq!(folders(true, own), [Path::new("/tmp/x")]);
    }
}
