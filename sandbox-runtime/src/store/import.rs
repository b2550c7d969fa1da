//! Importing a root file system archive as an image of one layer.
//!
//! ```text
//! lock ─► empty tmp/ ─► hash ─► known? ── yes ──────────────► name ─► done
//!                                 └─ no ─► copy ─► unpack ─► sync ─► rename layer, blobs ─► name
//! ```
//!
//! The configuration holds no time of import, so the same archive always becomes the same image.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use oci_spec::image::{
    Arch, Descriptor, ImageConfigurationBuilder, ImageManifestBuilder, MediaType, Os, RootFsBuilder, Sha256Digest,
};
use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};

use super::unpack::{Skipped, check_headers, unpack};
use super::{ImageId, Store, StoreError, is_valid_name};
use crate::fault;

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

/// How the archive is packed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
}

struct Layer {
    blob_hex: String,
    blob_size: u64,
    diff_hex: String,
    packing: Packing,
}

impl Store {
    /// Imports a root file system archive (tar, optionally gzip) and gives it a name, replacing what the name
    /// stood for. The second import of the same archive changes nothing but the name.
    ///
    /// Device nodes are left out (sandboxes have a `/dev` of their own), so are attributes other than `user.*`;
    /// [`Imported::skipped`] counts them. Owners, modes, times, hard links and `user.*` attributes are kept.
    ///
    /// # Errors
    /// When the file is no tar archive, holds an entry that could escape the layer or deceive overlayfs (see
    /// [`super::EntryRefusal`]), or the disk is full. Nothing half-made stays; what a crash leaves is removed by
    /// the next import.
    pub fn import_rootfs_tar(&self, archive: &Path, name: &str) -> Result<Imported, StoreError> {
        if !is_valid_name(name) {
            return Err(StoreError::InvalidName { name: name.to_owned() });
        }
        let _lock = self.lock_imports()?;
        self.empty_temporary()?;
        let (layer, source) = measure(archive)?;
        let (unpacked, skipped) = if self.layer(&layer.diff_hex).exists() && self.blob(&layer.blob_hex).exists() {
            (false, Skipped::default())
        } else {
            (true, self.add_layer(&layer, archive, source)?)
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
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(StoreError::io("remove", path))?;
        }
        Ok(())
    }

    /// Copies the archive into the blobs and unpacks it, then puts both in place.
    fn add_layer(&self, layer: &Layer, archive: &Path, mut source: File) -> Result<Skipped, StoreError> {
        let made = self.unpack_and_publish(layer, archive, &mut source);
        if made.is_err() {
            // The import's own error says more than one of cleaning up; the next import cleans again.
            let _ = self.empty_temporary();
        }
        made
    }

    fn unpack_and_publish(&self, layer: &Layer, archive: &Path, source: &mut File) -> Result<Skipped, StoreError> {
        let blob = self.temporary().join(&layer.blob_hex);
        let mut copy = File::create_new(&blob).map_err(StoreError::io("create", &blob))?;
        io::Seek::rewind(source).map_err(StoreError::io("read", archive))?;
        let copied = io::copy(source, &mut copy).map_err(StoreError::io("copy archive to", &blob))?;
        copy.set_permissions(fs::Permissions::from_mode(0o600)).map_err(StoreError::io("set mode of", &blob))?;
        let (measured, copy) = measure(&blob)?;
        if copied != layer.blob_size || measured.blob_hex != layer.blob_hex {
            return Err(StoreError::Changed { path: archive.to_owned() });
        }
        fault::point("import.copied");
        let tree = self.temporary().join(format!("{}.layer", layer.diff_hex));
        fs::create_dir(&tree).map_err(StoreError::io("make directory", &tree))?;
        check_headers(reader(&copy, layer.packing), archive)?;
        let skipped = unpack(reader(&copy, layer.packing), archive, &tree)?;
        fault::point("import.unpacked");
        rustix::fs::syncfs(&copy).map_err(|error| StoreError::io("sync", &tree)(error.into()))?;
        let place = self.layer(&layer.diff_hex);
        if place.exists() {
            // From an import that was killed before it placed the blob: as good as this one.
            fs::remove_dir_all(&tree).map_err(StoreError::io("remove", &tree))?;
        } else {
            rename_synced(&tree, &place)?;
        }
        fault::point("import.layer-placed");
        rename_synced(&blob, &self.blob(&layer.blob_hex))?;
        fault::point("import.blob-placed");
        Ok(skipped)
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
        let media_type = match layer.packing {
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
            .layers(vec![describe(media_type, layer.blob_size, &layer.blob_hex)?])
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

/// Reads a whole archive once for its digests.
fn measure(archive: &Path) -> Result<(Layer, File), StoreError> {
    let failed = |error| StoreError::io("read", archive)(error);
    let source = File::open(archive).map_err(StoreError::io("open archive", archive))?;
    if !source.metadata().map_err(failed)?.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(StoreError::NotATar { path: archive.to_owned(), source });
    }
    let mut magic = [0; 2];
    let packing = match std::os::unix::fs::FileExt::read_at(&source, &mut magic, 0).map_err(failed)? {
        2 if magic == [0x1f, 0x8b] => Packing::Gzip,
        _ => Packing::Plain,
    };
    let mut blob = Hashing::new(BufReader::with_capacity(1 << 20, &source));
    let diff_hex = match packing {
        Packing::Plain => None,
        Packing::Gzip => {
            let mut plain = Hashing::new(MultiGzDecoder::new(&mut blob));
            io::copy(&mut plain, &mut io::sink())
                .map_err(|source| StoreError::NotATar { path: archive.to_owned(), source })?;
            Some(plain.finish().0)
        }
    };
    io::copy(&mut blob, &mut io::sink()).map_err(failed)?;
    let (blob_hex, blob_size) = blob.finish();
    let diff_hex = diff_hex.unwrap_or_else(|| blob_hex.clone());
    Ok((Layer { blob_hex, blob_size, diff_hex, packing }, source))
}

fn reader(archive: &File, packing: Packing) -> Box<dyn Read + '_> {
    let mut plain = BufReader::with_capacity(1 << 20, archive);
    // The descriptor was read to its end for the digest.
    let _ = io::Seek::rewind(&mut plain);
    match packing {
        Packing::Plain => Box::new(plain),
        Packing::Gzip => Box::new(MultiGzDecoder::new(plain)),
    }
}

/// A reader that hashes and counts what passes.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
    size: u64,
}

impl<R> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    fn finish(self) -> (String, u64) {
        (hex::encode(self.hash.finalize()), self.size)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        self.size += length as u64;
        Ok(length)
    }
}
