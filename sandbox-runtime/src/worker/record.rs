//! The durable record beside a sandbox's files: which image and which uids they belong to.
//!
//! `sandboxes/<id>/sandbox.json`. Version 1 is the first; a record of a newer version is refused with its
//! number, and its files are left alone.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use ostler_wire::{Failure, FailureKind};
use serde::{Deserialize, Serialize};

use crate::ids::{Range, WHOLE};
use crate::step::{Step, failure};

/// Newest version that this program writes and reads.
const VERSION: u32 = 1;
const FILE: &str = "sandbox.json";
const TEMPORARY: &str = "sandbox.json.new";

/// What is known of a sandbox's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// Bare lowercase ULID.
    pub(crate) sandbox: String,
    /// Digest of the image's manifest.
    pub(crate) image: String,
    /// First uid and gid of its range.
    uid_base: u32,
    /// How many there are in it. Absent in records of launchers that had only whole ranges.
    #[serde(default = "whole")]
    uid_count: u32,
}

fn whole() -> u32 {
    WHOLE
}

/// A record that was written and is not yet known to be on the disk.
pub(crate) struct Written {
    file: Option<File>,
    directory: File,
    parent: File,
}

impl Written {
    /// Waits until the record is on the disk. The files of a sandbox count only with their record.
    pub(crate) fn sync(&self) -> std::io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_all()?;
        self.directory.sync_all()?;
        self.parent.sync_all()
    }
}

impl Record {
    pub(crate) fn new(sandbox: String, image: String, ids: Range) -> Self {
        Self { version: VERSION, sandbox, image, uid_base: ids.base, uid_count: ids.count }
    }

    /// The uids and gids that its files bear.
    pub(crate) fn ids(&self) -> Range {
        Range { base: self.uid_base, count: self.uid_count }
    }

    /// Writes the record into `directory` if it is not there already.
    pub(crate) fn write(&self, directory: &Path) -> Result<Written, Failure> {
        let path = directory.join(FILE);
        let open = |path: &Path| File::open(path).step("open", || path.display().to_string());
        let parent = open(directory.parent().unwrap_or(Path::new("/")))?;
        let mut written = Written { file: None, directory: open(directory)?, parent };
        if !path.exists() {
            let temporary = directory.join(TEMPORARY);
            let text = serde_json::to_vec_pretty(self)
                .map_err(|error| failure(FailureKind::System, "encode record", error.to_string()))?;
            let write = || {
                let mut file = File::create(&temporary)?;
                file.write_all(&text)?;
                fs::rename(&temporary, &path)?;
                Ok::<_, std::io::Error>(file)
            };
            written.file = Some(write().step("write record", || path.display().to_string())?);
        }
        Ok(written)
    }

    /// Reads the record in `directory`; `None` where there is none or only half of one, after a crash.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, Failure> {
        let path: PathBuf = directory.join(FILE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.step("read record", || path.display().to_string())?,
        };
        let Ok(record) = serde_json::from_slice::<Self>(&text) else { return Ok(None) };
        if record.version > VERSION {
            let words = format!("{} has version {}, this program knows {VERSION}", path.display(), record.version);
            return Err(failure(FailureKind::Invalid, "read record", words));
        }
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let record = Record::new("01".to_owned(), "sha256:00".to_owned(), Range { base: 0x7000_0000, count: 4096 });
        record.write(directory.path()).unwrap().sync().unwrap();
        assert_eq!(Record::read(directory.path()).unwrap(), Some(record));
    }

    #[test]
    fn a_record_without_a_count_has_a_whole_range() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), r#"{"version":1,"sandbox":"a","image":"b","uid_base":7}"#).unwrap();
        assert_eq!(Record::read(directory.path()).unwrap().unwrap().ids(), Range::whole(7));
    }

    #[test]
    fn a_torn_record_is_none_and_a_newer_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(directory.path()).unwrap(), None);
        fs::write(directory.path().join(FILE), "{\"version\":1,").unwrap();
        assert_eq!(Record::read(directory.path()).unwrap(), None);
        fs::write(directory.path().join(FILE), r#"{"version":9,"sandbox":"a","image":"b","uid_base":1}"#).unwrap();
        assert!(Record::read(directory.path()).unwrap_err().detail.contains("has version 9, this program knows 1"));
    }
}
