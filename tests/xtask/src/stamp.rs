//! How a step knows that it is up to date: a file that holds the fingerprint of everything the step was made from.
//!
//! Fingerprints are 128-bit FNV-1a over lengths and contents. That protects against mistakes, not against somebody
//! who wants two inputs to look the same, which nobody here can gain anything from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A growing fingerprint. The order of the parts counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(u128);

impl Fingerprint {
    // Offset basis and prime of FNV-1a at 128 bits, as its authors give them.
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    /// Begins; `kind` and its version keep the fingerprints of different steps apart.
    pub fn new(kind: &str) -> Self {
        Self(Self::BASIS).text(kind)
    }

    /// Adds bytes, preceded by their length so that neighbours cannot run into each other.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(Self::PRIME);
        }
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Adds a file's content.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read.
    pub fn file(self, path: &Path) -> Result<Self> {
        Ok(self.bytes(&fs::read(path).map_err(Error::file("read", path))?))
    }

    /// Adds every file below a directory, with its name, in the order of names.
    ///
    /// # Errors
    /// [`Error::File`] when something cannot be read.
    pub fn tree(mut self, directory: &Path) -> Result<Self> {
        let mut entries: Vec<PathBuf> = fs::read_dir(directory)
            .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())
            .map_err(Error::file("list", directory))?;
        entries.sort();
        for entry in entries {
            let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            self = self.text(&name);
            self = if entry.is_dir() { self.tree(&entry)? } else { self.file(&entry)? };
        }
        Ok(self)
    }

    /// 32 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.0)
    }
}

/// The file that remembers the fingerprint of a step's last success.
#[derive(Debug)]
pub struct Stamp(PathBuf);

impl Stamp {
    /// A stamp kept in `path`.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Whether the last success was made from exactly this.
    pub fn holds(&self, fingerprint: &Fingerprint) -> bool {
        fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == fingerprint.hex())
    }

    /// Remembers a success. To be called after the step's result is in place.
    ///
    /// # Errors
    /// [`Error::File`] when the stamp cannot be written.
    pub fn write(&self, fingerprint: &Fingerprint) -> Result<()> {
        fs::write(&self.0, fingerprint.hex() + "\n").map_err(Error::file("write", &self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_depend_on_content_order_and_borders() {
        let of = |parts: &[&str]| parts.iter().fold(Fingerprint::new("test"), |f, part| f.text(part)).hex();
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["a"]), of(&["a", ""]));
        assert_ne!(Fingerprint::new("one").hex(), Fingerprint::new("two").hex());
    }

    #[test]
    fn a_stamp_holds_until_a_file_of_the_tree_changes_or_moves() {
        let directory = std::env::temp_dir().join(format!("xtask-stamp-test-{}", std::process::id()));
        let tree = directory.join("tree");
        fs::create_dir_all(tree.join("inner")).unwrap();
        fs::write(tree.join("inner/file"), "one").unwrap();
        let now = || Fingerprint::new("test").tree(&tree).unwrap();
        let stamp = Stamp::at(directory.join("stamp"));

        assert!(!stamp.holds(&now()), "there is no stamp yet");
        stamp.write(&now()).unwrap();
        assert!(stamp.holds(&now()));
        fs::write(tree.join("inner/file"), "two").unwrap();
        assert!(!stamp.holds(&now()), "the content changed");
        stamp.write(&now()).unwrap();
        fs::rename(tree.join("inner/file"), tree.join("inner/other")).unwrap();
        assert!(!stamp.holds(&now()), "the name changed");

        fs::remove_dir_all(&directory).unwrap();
    }
}
