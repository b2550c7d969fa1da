//! Large texts beside the log, named by their digest. A blob is durable before an event names it.

use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::StoreError;

/// A folder of blobs.
#[derive(Clone)]
pub struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    /// Opens the folder, making it where it is missing.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder).map_err(|source| StoreError::Create { path: folder.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Keeps `bytes` and returns `sha256:` and their digest. Blocks on the disk.
    pub fn put(&self, bytes: &[u8]) -> Result<String, StoreError> {
        let hex = hex::encode(Sha256::digest(bytes));
        let digest = format!("sha256:{hex}");
        let path = self.folder.join(&hex);
        if path.exists() {
            return Ok(digest);
        }
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            std::fs::File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| StoreError::Blob { operation: "keep", digest: digest.clone(), source })?;
        Ok(digest)
    }

    /// Reads a blob; `None` where there is none, or where `digest` is not one. Blocks on the disk.
    pub fn get(&self, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(hex) = digest.strip_prefix("sha256:") else { return Ok(None) };
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            return Ok(None);
        }
        match std::fs::read(self.folder.join(hex)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Blob { operation: "read", digest: digest.to_owned(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_found_by_its_digest_only() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "x").unwrap();
        let blobs = Blobs::open(&folder.path().join("blobs")).unwrap();
        let digest = blobs.put(b"hello").unwrap();
        assert_eq!(blobs.put(b"hello").unwrap(), digest);
        assert_eq!(blobs.get(&digest).unwrap().unwrap(), b"hello");
        assert_eq!(blobs.get("sha256:../secret").unwrap(), None);
        assert_eq!(blobs.get("secret").unwrap(), None);
    }
}
