//! The token that every request carries: how it is made, kept and compared.
//!
//! Owns the token file. The token is never logged and never part of an address; [`ApiToken`] shows itself as
//! `ApiToken(…)`.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

/// Length of a token: 256 random bits as lowercase hexadecimal digits.
const LENGTH: usize = 64;

/// The token of a host.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken(String);

impl ApiToken {
    /// A token from its text: exactly 64 lowercase hexadecimal digits, or `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        digits.then(|| Self(text.to_owned()))
    }

    /// A new token from the kernel's random numbers.
    fn generate() -> io::Result<Self> {
        random_hex(LENGTH / 2).map(Self)
    }

    /// The token itself, for a header.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `candidate` is this token.
    #[must_use]
    pub fn matches(&self, candidate: &str) -> bool {
        equal(&self.0, candidate)
    }
}

/// Whether a secret is the one that was sent. Takes the same time wherever they differ: what is compared are digests,
/// and every byte of them.
pub(super) fn equal(secret: &str, sent: &str) -> bool {
    let ours = Sha256::digest(secret.as_bytes());
    let theirs = Sha256::digest(sent.as_bytes());
    let difference = ours.iter().zip(theirs.iter()).fold(0_u8, |seen, (a, b)| seen | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// As many of the kernel's random bytes, as lowercase hexadecimal digits.
pub(super) fn random_hex(bytes: usize) -> io::Result<String> {
    let mut random = vec![0_u8; bytes];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(hex::encode(random))
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(…)")
    }
}

/// What can go wrong with the token file.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file is there and cannot be read.
    #[error("could not read the token file {path}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file could not be made.
    #[error("could not make the token file {path}", path = path.display())]
    Create {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can read the file.
    #[error("the token file {path} has mode {mode:04o}, it must be 0600", path = path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("the token file {path} does not hold a token: 64 hexadecimal digits were expected", path = path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
}

/// Reads the token at `path`, or makes one there. Two starts at the same time end with the same token: the file
/// appears whole, and only once.
pub fn load_or_create_token(path: &Path) -> Result<ApiToken, TokenError> {
    match load_token(path) {
        Err(TokenError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        loaded => return loaded,
    }
    match create(path) {
        Ok(token) => Ok(token),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load_token(path),
        Err(source) => Err(TokenError::Create { path: path.to_owned(), source }),
    }
}

/// Reads the token at `path`. A file that others can read is refused: what it protects must be assumed lost.
pub fn load_token(path: &Path) -> Result<ApiToken, TokenError> {
    let read = |source| TokenError::Read { path: path.to_owned(), source };
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_file() {
        return Err(TokenError::Malformed { path: path.to_owned() });
    }
    if mode & 0o077 != 0 {
        return Err(TokenError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(LENGTH as u64 + 2).read_to_string(&mut text).map_err(read)?;
    ApiToken::parse(text.trim_end()).ok_or_else(|| TokenError::Malformed { path: path.to_owned() })
}

fn create(path: &Path) -> io::Result<ApiToken> {
    let token = ApiToken::generate()?;
    let directory = path.parent().unwrap_or(Path::new("."));
    // Made with mode 0600 under a name of its own, then linked to the real one, so that no reader sees half of it.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    writeln!(file, "{}", token.expose())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let made = load_or_create_token(&path).unwrap();
        assert_eq!(load_or_create_token(&path).unwrap(), made);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn two_starts_at_once_agree_on_one_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let tokens = std::thread::scope(|scope| {
            let starts = [(); 8].map(|()| scope.spawn(|| load_or_create_token(&path).unwrap()));
            starts.map(|start| start.join().unwrap())
        });
        assert!(tokens.iter().all(|token| *token == tokens[0]));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        load_or_create_token(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load_or_create_token(&path), Err(TokenError::Exposed { mode: 0o644, .. })));
    }

    #[test]
    fn a_file_with_something_else_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(b"my shopping list").unwrap();
        assert!(matches!(load_or_create_token(&path), Err(TokenError::Malformed { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"my shopping list");
    }

    #[test]
    fn only_the_same_token_matches_and_debug_hides_it() {
        let token = ApiToken::generate().unwrap();
        assert!(token.matches(token.expose()));
        assert!(!token.matches(&token.expose()[..63]));
        assert!(!token.matches(&ApiToken::generate().unwrap().0));
        assert!(!format!("{token:?}").contains(&token.0[..8]));
    }
}
