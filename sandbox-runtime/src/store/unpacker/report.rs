//! What the process says that read the archive: one bounded message, which may be a lie.
//!
//! Texts in it come from the archive. They are cut here by who sends them, and once more by who shows them.

use std::io;
use std::path::Path;

use ostler_wire::Failure;
use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::store::unpack::{EntryRefusal, Skipped};

/// Most characters of a text.
const LONGEST: usize = 512;

/// The one message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    Done(Done),
    Failed(Problem),
    /// The archive was not looked at.
    NotBegun(Failure),
    /// From who waited for it: it ended without a word.
    Ended {
        how: String,
    },
}

/// What was made of the archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Done {
    pub(in crate::store) bytes: u64,
    pub(in crate::store) skipped: Skipped,
}

/// Why nothing was.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) enum Problem {
    /// It is no archive, or not a whole one.
    NotATar(String),
    /// One entry may not be.
    Entry { entry: String, why: EntryRefusal },
    /// The operating system refused.
    System { step: UnpackStep, path: String, errno: i32 },
    /// It has more bytes than allowed.
    TooLarge,
    /// It has more names than allowed.
    TooMany,
}

/// What was being done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) enum UnpackStep {
    Open,
    SetMode,
    Unpack,
    MakeDirectory,
    Link,
    SetOwner,
    Decompress,
}

impl UnpackStep {
    fn words(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::SetMode => "set mode of",
            Self::Unpack => "unpack",
            Self::MakeDirectory => "make directory",
            Self::Link => "link",
            Self::SetOwner => "set owner of",
            Self::Decompress => "decompress into",
        }
    }
}

impl Problem {
    /// The archive cannot be read on, or makes no sense.
    pub(in crate::store) fn of_archive(error: io::Error) -> Self {
        Self::NotATar(cut(&error.to_string()))
    }

    /// An entry may not be.
    pub(in crate::store) fn of_entry(name: &[u8], why: EntryRefusal) -> Self {
        Self::Entry { entry: cut(&String::from_utf8_lossy(name)), why }
    }

    /// Writing failed; or reading, where the operating system has no number for it.
    pub(in crate::store) fn of_system(step: UnpackStep, path: impl AsRef<Path>, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::System { step, path: cut(&path.as_ref().to_string_lossy()), errno },
            None => Self::NotATar(cut(&error.to_string())),
        }
    }

    /// As the store says it: of which archive, made into what, allowed how much.
    pub(super) fn into_error(self, archive: &Path, made: &Path, bytes: u64, entries: u64) -> StoreError {
        let path = archive.to_owned();
        match self {
            Self::NotATar(words) => StoreError::NotATar { path, source: io::Error::other(plain(&words)) },
            Self::Entry { entry, why } => StoreError::Entry { entry: cut(&entry), source: why },
            Self::System { step, path, errno } => {
                let path = if path.is_empty() { made.to_owned() } else { made.join(plain(&path)) };
                StoreError::io(step.words(), path)(io::Error::from_raw_os_error(errno))
            }
            Self::TooLarge => StoreError::TooLarge { path, bytes },
            Self::TooMany => StoreError::TooMany { path, entries },
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// Cut, and without what would steer a terminal.
pub(super) fn plain(text: &str) -> String {
    let shown = |character: char| match character.is_control() {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    };
    text.chars().take(LONGEST).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_cut_and_steers_no_terminal() {
        let long = format!("\u{1b}[2J{}", "x".repeat(100_000));
        let problems = [
            Problem::NotATar(long.clone()),
            Problem::Entry { entry: long.clone(), why: EntryRefusal::Absolute },
            Problem::System { step: UnpackStep::Unpack, path: long, errno: libc::EIO },
        ];
        for problem in problems {
            let error = problem.into_error(Path::new("a.tar"), Path::new("/store/tmp/x"), 1, 1);
            let words = format!("{error}: {}", std::error::Error::source(&error).unwrap());
            assert!(!words.contains('\u{1b}') && words.len() < 2 * LONGEST, "{} {words}", words.len());
        }
        let full = Problem::System { step: UnpackStep::Unpack, path: "a".to_owned(), errno: libc::ENOSPC };
        assert!(matches!(full.into_error(Path::new("a"), Path::new("/b"), 1, 1), StoreError::NoSpace { .. }));
    }
}
