//! Importing a root file system archive as an image of one layer.
//!
//! ```text
//! lock ─► empty tmp/ ─► hash ─► known? ── yes ─────────────────────────────────► name ─► done
//!                                 └─ no ─► copy ─► [decompress ─► hash] ─► [unpack] ─► sync ─► rename layer, blobs ─► name
//! ```
//!
//! What is in brackets happens in confined processes, see [`super::unpacker`]: nothing here looks at more of an archive than
//! its first two bytes. What names a layer is a digest that is taken here of the very bytes that are unpacked, so that an archive
//! which takes such a process over makes itself a false tree, and nobody else. The configuration holds no time of import, so the
//! same archive always becomes the same image.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use oci_spec::image::{
    Arch, Descriptor, ImageConfigurationBuilder, ImageManifestBuilder, MediaType, Os, RootFsBuilder, Sha256Digest,
};
use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};

use super::unpack::Skipped;
use super::unpacker::Unpacker;
use super::{ImageId, Store, StoreError, is_valid_name};
use crate::fault;
use crate::removal::remove;

/// An archive that is in the store now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The image.
    pub image: ImageId,
    /// Whether anything had to be unpacked; `false` means that the store had it.
    pub unpacked: bool,
    /// What was left out of the layer on purpose.
    pub skipped: Skipped,
}

/// How a gzip stream begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// How the archive is packed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
}

/// The archive as it came.
struct Blob {
    hex: String,
    size: u64,
    packing: Packing,
}

/// What an archive is as part of an image.
struct Layer {
    blob: Blob,
    diff_hex: String,
}

impl Store {
    /// Imports a root file system archive (tar, optionally gzip) and gives it a name, replacing what the name
    /// stood for. The second import of the same archive changes nothing but the name.
    ///
    /// Device nodes are left out (sandboxes have a `/dev` of their own), so are attributes other than `user.*`;
    /// [`Imported::skipped`] counts them, by the word of who left them out. Owners, modes, times, hard links and `user.*`
    /// attributes are kept.
    ///
    /// # Errors
    /// When the file is no tar archive, holds an entry that could escape the layer or deceive overlayfs (see
    /// [`super::EntryRefusal`]), takes more than [`super::unpacker::Bounds`] allow, the process that reads it ends, or the
    /// disk is full. Nothing half-made stays; what a crash leaves is removed by the next import.
    pub fn import_rootfs_tar(&self, archive: &Path, name: &str, unpacker: &Unpacker) -> Result<Imported, StoreError> {
        if !is_valid_name(name) {
            return Err(StoreError::InvalidName { name: name.to_owned() });
        }
        let _lock = self.lock_imports()?;
        self.empty_temporary()?;
        let mut source = open(archive)?;
        let blob = measure(&mut source, archive, &mut io::sink())?;
        let is_known =
            blob.packing == Packing::Plain && self.layer(&blob.hex).exists() && self.blob(&blob.hex).exists();
        let (layer, unpacked, skipped) = if is_known {
            (Layer { diff_hex: blob.hex.clone(), blob }, false, Skipped::default())
        } else {
            self.add_layer(blob, archive, source, unpacker)?
        };
        let image = self.add_manifest(&layer)?;
        fault::point("import.unnamed");
        self.publish(format!("{image}\n").as_bytes(), &self.root.join("names").join(name), 0o644)?;
        fault::point("import.named");
        Ok(Imported { image, unpacked, skipped })
    }

    /// Removes what an import that was killed has left. Where one is running, its things are left alone.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub(crate) fn remove_half_made(&self) -> Result<(), StoreError> {
        match self.lock_imports() {
            Ok(_lock) => self.empty_temporary(),
            Err(StoreError::Busy { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn lock_imports(&self) -> Result<File, StoreError> {
        let path = self.root.join("import.lock");
        let lock = File::options().create(true).append(true).open(&path).map_err(StoreError::io("open lock", &path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(lock),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Busy { path: self.root.clone() }),
            Err(error) => Err(StoreError::io("lock", path)(error.into())),
        }
    }

    fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn empty_temporary(&self) -> Result<(), StoreError> {
        let directory = self.temporary();
        for entry in fs::read_dir(&directory).map_err(StoreError::io("list", &directory))? {
            let path = entry.map_err(StoreError::io("list", &directory))?.path();
            remove(&path).map_err(|error| StoreError::io("remove", path)(error.into()))?;
        }
        Ok(())
    }

    /// Copies the archive into the blobs and unpacks it, then puts both in place.
    fn add_layer(
        &self,
        blob: Blob,
        archive: &Path,
        source: File,
        unpacker: &Unpacker,
    ) -> Result<(Layer, bool, Skipped), StoreError> {
        let made = self.unpack_and_publish(blob, archive, source, unpacker);
        if made.is_err() {
            // The import's own error says more than one of cleaning up; the next import cleans again.
            let _ = self.empty_temporary();
        }
        made
    }

    fn unpack_and_publish(
        &self,
        blob: Blob,
        archive: &Path,
        source: File,
        unpacker: &Unpacker,
    ) -> Result<(Layer, bool, Skipped), StoreError> {
        let copy = self.copy(&blob, archive, source)?;
        fault::point("import.copied");
        let (tar, diff_hex) = match blob.packing {
            Packing::Plain => (copy.clone(), blob.hex.clone()),
            Packing::Gzip => {
                let plain = self.temporary().join("plain");
                create(&plain)?;
                unpacker.decompress(open(&copy)?, archive, &plain, unpacker.bounds.bytes_of(blob.size))?;
                fault::point("import.decompressed");
                let diff_hex = measure(&mut open(&plain)?, &plain, &mut io::sink())?.hex;
                (plain, diff_hex)
            }
        };
        let (unpacked, skipped) = match self.layer(&diff_hex).exists() {
            // From another packing of the same archive, or an import that was killed before it placed the blob.
            true => {
                let synced = File::open(&copy).and_then(|copy| copy.sync_all());
                synced.map_err(StoreError::io("sync", &copy))?;
                (false, Skipped::default())
            }
            false => (true, self.unpack(&tar, &diff_hex, &blob, archive, unpacker)?),
        };
        fault::point("import.layer-placed");
        if !self.blob(&blob.hex).exists() {
            rename_synced(&copy, &self.blob(&blob.hex))?;
        }
        fault::point("import.blob-placed");
        self.empty_temporary()?;
        Ok((Layer { blob, diff_hex }, unpacked, skipped))
    }

    /// Copies the archive to where nobody but root can change it.
    fn copy(&self, blob: &Blob, archive: &Path, mut source: File) -> Result<PathBuf, StoreError> {
        let path = self.temporary().join(&blob.hex);
        let mut copy = create(&path)?;
        io::Seek::rewind(&mut source).map_err(StoreError::io("read", archive))?;
        let copied = measure(&mut source, archive, &mut copy).map_err(|error| match error {
            StoreError::NoSpace { .. } => StoreError::NoSpace { path: path.clone() },
            error => error,
        })?;
        if (copied.size, &copied.hex) != (blob.size, &blob.hex) {
            return Err(StoreError::Changed { path: archive.to_owned() });
        }
        Ok(path)
    }

    /// Has the archive `tar` unpacked and puts the tree in its place. What is in the store then is on the disk, the copy of the
    /// archive too.
    fn unpack(
        &self,
        tar: &Path,
        diff_hex: &str,
        blob: &Blob,
        archive: &Path,
        unpacker: &Unpacker,
    ) -> Result<Skipped, StoreError> {
        let tree = self.temporary().join(format!("{diff_hex}.layer"));
        fs::create_dir(&tree).map_err(StoreError::io("make directory", &tree))?;
        let content = open(tar)?;
        let disk = File::open(&tree).map_err(StoreError::io("open", &tree))?;
        if blob.packing == Packing::Gzip {
            // From now on nobody needs its name, and it need not come to the disk.
            fs::remove_file(tar).map_err(StoreError::io("remove", tar))?;
        }
        let done = unpacker.unpack(content, archive, &tree, unpacker.bounds.bytes_of(blob.size))?;
        fault::point("import.unpacked");
        rustix::fs::syncfs(&disk).map_err(|error| StoreError::io("sync", &tree)(error.into()))?;
        rename_synced(&tree, &self.layer(diff_hex))?;
        Ok(done.skipped)
    }

    /// Writes configuration and manifest where the store lacks them.
    fn add_manifest(&self, layer: &Layer) -> Result<ImageId, StoreError> {
        let encode = |part| move |source| StoreError::Encode { part, source };
        let root = RootFsBuilder::default()
            .typ("layers".to_owned())
            .diff_ids(vec![format!("sha256:{}", layer.diff_hex)])
            .build()
            .map_err(encode("configuration"))?;
        let config = ImageConfigurationBuilder::default()
            .architecture(Arch::default())
            .os(Os::Linux)
            .rootfs(root)
            .build()
            .and_then(|config| config.to_string())
            .map_err(encode("configuration"))?;
        let media_type = match layer.blob.packing {
            Packing::Plain => MediaType::ImageLayer,
            Packing::Gzip => MediaType::ImageLayerGzip,
        };
        let describe = |media_type, size, hex: &str| {
            Ok(Descriptor::new(media_type, size, hex.parse::<Sha256Digest>().map_err(encode("manifest"))?))
        };
        let config_hex = self.add_blob(config.as_bytes())?;
        fault::point("import.config-placed");
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(describe(MediaType::ImageConfig, config.len() as u64, &config_hex)?)
            .layers(vec![describe(media_type, layer.blob.size, &layer.blob.hex)?])
            .build()
            .and_then(|manifest| manifest.to_string())
            .map_err(encode("manifest"))?;
        self.add_blob(manifest.as_bytes()).map(|hex| ImageId::from_hex(&hex))
    }

    fn add_blob(&self, content: &[u8]) -> Result<String, StoreError> {
        let hex = hex::encode(Sha256::digest(content));
        let place = self.blob(&hex);
        if !place.exists() {
            self.publish(content, &place, 0o644)?;
        }
        Ok(hex)
    }

    /// Writes a small file durably and atomically.
    fn publish(&self, content: &[u8], place: &Path, mode: u32) -> Result<(), StoreError> {
        let path = self.temporary().join("small");
        let write = || {
            let mut file = File::create(&path)?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(content)?;
            file.sync_all()
        };
        write().map_err(StoreError::io("write", &path))?;
        rename_synced(&path, place)
    }
}

/// Renames and syncs the directory that now holds the thing.
fn rename_synced(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::io("rename into place", to))?;
    let parent = to.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(StoreError::io("sync", parent))
}

/// Opens an archive to read it; anything but a regular file is none. Never waits for a pipe to have a writer.
fn open(archive: &Path) -> Result<File, StoreError> {
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(archive);
    let source = opened.map_err(StoreError::io("open archive", archive))?;
    if !source.metadata().map_err(StoreError::io("read", archive))?.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(StoreError::NotATar { path: archive.to_owned(), source });
    }
    Ok(source)
}

/// Makes an empty file that only root can read.
fn create(path: &Path) -> Result<File, StoreError> {
    File::options().write(true).create_new(true).mode(0o600).open(path).map_err(StoreError::io("create", path))
}

/// Reads an archive to its end for its digest, and copies it on the way.
fn measure(source: &mut File, archive: &Path, copy: &mut impl Write) -> Result<Blob, StoreError> {
    let mut buffer = vec![0; 1 << 20];
    let (mut hash, mut size, mut packing) = (Sha256::new(), 0, Packing::Plain);
    loop {
        let length = match source.read(&mut buffer) {
            Ok(0) => return Ok(Blob { hex: hex::encode(hash.finalize()), size, packing }),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StoreError::io("read", archive)(error)),
        };
        if size == 0 && buffer[..length].starts_with(&GZIP) {
            packing = Packing::Gzip;
        }
        hash.update(&buffer[..length]);
        copy.write_all(&buffer[..length]).map_err(StoreError::io("copy", archive))?;
        size += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_that_changed_since_it_was_looked_at_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("store")).unwrap();
        let archive = folder.path().join("root.tar");
        for (number, (then, now, is_same)) in
            [("first", "first", true), ("first", "FIRST", false), ("first", "first and more", false)]
                .into_iter()
                .enumerate()
        {
            fs::write(&archive, then).unwrap();
            let mut source = open(&archive).unwrap();
            let mut blob = measure(&mut source, &archive, &mut io::sink()).unwrap();
            fs::write(&archive, now).unwrap();
            let copied = store.copy(&blob, &archive, source);
            assert_eq!(copied.is_ok(), is_same, "{number}: {copied:?}");
            assert!(is_same || matches!(copied, Err(StoreError::Changed { .. })), "{number}: {copied:?}");
            store.empty_temporary().unwrap();
            blob.size += 1;
            assert!(store.copy(&blob, &archive, open(&archive).unwrap()).is_err(), "{number}");
            store.empty_temporary().unwrap();
        }
    }
}
