//! The image store: content-addressed OCI blobs, unpacked layers, and names.
//!
//! ```text
//! <store>/                       0711, root
//!   blobs/sha256/<hex>           manifests, configurations, layers as they came
//!   layers/<diff id hex>/        the same layers unpacked, ids as in the archive    0700
//!   names/<name>                 "sha256:<hex>" of a manifest                       0755
//!   owned/<range>/<hex>/         layers with the ids of a sandbox, where a mount cannot show them so    0700
//!   tmp/                         half-made things; emptied by the next import       0700
//!   sandboxes/<id>/              files of sandboxes, owned by the launcher          0700
//!   trash/                       being removed by the launcher                      0700
//!   lost/                        files of sandboxes whose record is damaged         0700
//! ```
//!
//! A thing is made under `tmp/`, synced and renamed into place, so that a crash leaves nothing half-made. Layers
//! are out of reach for other users of the machine: they may hold set-user-id programs. This module owns
//! everything but `sandboxes/` and `trash/`. It does not fetch from registries.

mod import;
mod owned;
mod unpack;
pub mod unpacker;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use oci_spec::OciSpecError;
use oci_spec::image::{ImageConfiguration, ImageManifest};

pub use import::Imported;
pub use unpack::{EntryRefusal, Skipped};

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or quota is full.
    #[error("no space left for {path}: free some on its file system and try again")]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{operation} {path}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Its words.
        #[source]
        source: io::Error,
    },
    /// The file is no tar archive, or not a whole one.
    #[error("{path} is not a complete tar archive (plain or gzip)")]
    NotATar {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// An entry of the archive is not allowed in a layer.
    #[error("refused entry {entry:?}")]
    Entry {
        /// Its name in the archive.
        entry: String,
        /// Why.
        #[source]
        source: EntryRefusal,
    },
    /// A file of an image belongs to somebody who is not there in a sandbox.
    #[error(
        "{path} belongs to {uid}:{gid}, and a sandbox here has {count} ids; more are in /etc/subuid and /etc/subgid after: \
         usermod --add-subuids 1000000-3097151 --add-subgids 1000000-3097151 USER"
    )]
    NoSuchId {
        /// In the layer.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Ids of a sandbox.
        count: u32,
    },
    /// The file changed while it was read.
    #[error("{path} changed while it was being imported")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// It is larger unpacked than an archive may be.
    #[error("{path} unpacks to more than {bytes} bytes")]
    TooLarge {
        /// The archive.
        path: PathBuf,
        /// Bytes that it may become.
        bytes: u64,
    },
    /// It has more files and folders than an archive may have.
    #[error("{path} holds more than {entries} names")]
    TooMany {
        /// The archive.
        path: PathBuf,
        /// Names that it may have.
        entries: u64,
    },
    /// It was not unpacked in time.
    #[error("{path} was not unpacked within {time:?}")]
    TooLong {
        /// The archive.
        path: PathBuf,
        /// The time that it had.
        time: std::time::Duration,
    },
    /// There is no confined process to unpack it in.
    #[error("cannot confine what would read {path}")]
    NotConfined {
        /// The archive.
        path: PathBuf,
        /// The step that failed.
        #[source]
        source: ostler_wire::Failure,
    },
    /// The process that was to unpack it ended before it was done.
    #[error("the process that read {path} ended {how}")]
    Ended {
        /// The archive.
        path: PathBuf,
        /// In which way.
        how: String,
    },
    /// No image has this name.
    #[error("unknown image {name:?}; the store has: {}", known_or_none(.known))]
    UnknownImage {
        /// The name or digest that was asked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// The name cannot be one of an image.
    #[error(
        "invalid image name {name:?}: use 1 to 128 of a-z, 0-9, '.', '_', '-' and ':', beginning with a letter or digit"
    )]
    InvalidName {
        /// The name.
        name: String,
    },
    /// A blob is not what it should be.
    #[error("damaged image {image}")]
    Damaged {
        /// The image.
        image: String,
        /// What the parser said.
        #[source]
        source: OciSpecError,
    },
    /// The blob could not be encoded.
    #[error("encode the image's {part}")]
    Encode {
        /// Manifest or configuration.
        part: &'static str,
        /// What the encoder said.
        #[source]
        source: OciSpecError,
    },
    /// A layer of an image is not unpacked.
    #[error("image {image} lacks its layer {layer}: import it again")]
    MissingLayer {
        /// The image.
        image: String,
        /// Diff id of the layer.
        layer: String,
    },
    /// Another process imports into this store.
    #[error("another import into {path} is running: wait for it to end")]
    Busy {
        /// The store.
        path: PathBuf,
    },
}

impl StoreError {
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace { path },
            _ => Self::Io { operation, path, source },
        }
    }
}

fn known_or_none(known: &[String]) -> String {
    if known.is_empty() { "no image yet".to_owned() } else { known.join(", ") }
}

/// Digest of an image's manifest: `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId(String);

impl ImageId {
    /// Checks the form of a digest.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.strip_prefix("sha256:").filter(|hex| is_digest_hex(hex)).map(|_| Self(text.to_owned()))
    }

    /// The digest as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn from_hex(hex: &str) -> Self {
        Self(format!("sha256:{hex}"))
    }

    fn hex(&self) -> &str {
        self.0.trim_start_matches("sha256:")
    }
}

impl std::fmt::Display for ImageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_digest_hex(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What is known of an image without looking into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Bytes of its layers as they came, packed or not.
    pub bytes: u64,
    /// When it was imported under its name.
    pub named_at: SystemTime,
}

/// An image store on disk.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens a store, making what is missing of its directories.
    ///
    /// # Errors
    /// When a directory cannot be made, which needs root where the store belongs to root.
    pub fn create(root: &Path) -> Result<Self, StoreError> {
        for (directory, mode) in [
            (root.to_owned(), 0o711),
            (root.join("blobs"), 0o711),
            (root.join("blobs/sha256"), 0o711),
            (root.join("layers"), 0o700),
            (root.join("names"), 0o755),
            (root.join("tmp"), 0o700),
            (root.join("sandboxes"), 0o700),
            (root.join("trash"), 0o700),
        ] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&directory)
                .and_then(|()| fs::set_permissions(&directory, fs::Permissions::from_mode(mode)))
                .map_err(StoreError::io("make directory", &directory))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// A store that exists already, for reading names. Nothing is made or checked.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The manifest digest behind a name, or of a digest that the store has.
    ///
    /// # Errors
    /// [`StoreError::UnknownImage`] with the names that exist.
    pub fn resolve(&self, name: &str) -> Result<ImageId, StoreError> {
        let unknown = || StoreError::UnknownImage {
            name: name.to_owned(),
            known: self.list().unwrap_or_default().into_iter().map(|(name, _)| name).collect(),
        };
        if let Some(id) = ImageId::parse(name) {
            return if self.blob(id.hex()).exists() { Ok(id) } else { Err(unknown()) };
        }
        if !is_valid_name(name) {
            return Err(StoreError::InvalidName { name: name.to_owned() });
        }
        let path = self.root.join("names").join(name);
        match fs::read_to_string(&path) {
            Ok(text) => ImageId::parse(text.trim()).ok_or_else(unknown),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(unknown()),
            Err(error) => Err(StoreError::io("read image name", path)(error)),
        }
    }

    /// Every name and the image it stands for, sorted by name.
    ///
    /// # Errors
    /// When the names cannot be read.
    pub fn list(&self) -> Result<Vec<(String, ImageId)>, StoreError> {
        let directory = self.root.join("names");
        let entries = fs::read_dir(&directory).map_err(StoreError::io("list images", &directory))?;
        let mut images = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::io("list images", &directory))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let text = fs::read_to_string(entry.path()).map_err(StoreError::io("read image name", entry.path()))?;
            images.extend(ImageId::parse(text.trim()).filter(|_| is_valid_name(&name)).map(|id| (name, id)));
        }
        images.sort();
        Ok(images)
    }

    /// What is known of an image without looking into it: the bytes of its layers as they came, and when it got its name.
    ///
    /// # Errors
    /// When no image has this name, or when it is damaged.
    pub fn describe(&self, name: &str) -> Result<Description, StoreError> {
        let image = self.resolve(name)?;
        let damaged = |source| StoreError::Damaged { image: image.to_string(), source };
        let manifest = ImageManifest::from_file(self.blob(image.hex())).map_err(damaged)?;
        let bytes = manifest.layers().iter().map(|layer| layer.size()).sum();
        let path = self.root.join("names").join(name);
        let named = fs::metadata(&path).and_then(|metadata| metadata.modified());
        Ok(Description { bytes, named_at: named.map_err(StoreError::io("read image name", path))? })
    }

    /// When the image behind a name, or with a digest, was imported.
    ///
    /// # Errors
    /// When there is none.
    pub fn imported_at(&self, name: &str) -> Result<SystemTime, StoreError> {
        let path = match ImageId::parse(name) {
            Some(id) => self.blob(id.hex()),
            None => self.root.join("names").join(name),
        };
        let inspected = fs::metadata(&path).and_then(|metadata| metadata.modified());
        inspected.map_err(StoreError::io("inspect image", path))
    }

    /// Whether every layer of an image is there. Only root may look.
    ///
    /// # Errors
    /// When the image or one of its layers is not in the store, or is damaged.
    pub fn check(&self, image: &ImageId) -> Result<(), StoreError> {
        self.layers(image).map(drop)
    }

    /// The unpacked layers of an image, top first, as overlay wants them.
    ///
    /// # Errors
    /// When the image or one of its layers is not in the store, or is damaged.
    pub(crate) fn layers(&self, image: &ImageId) -> Result<Vec<PathBuf>, StoreError> {
        let image = self.resolve(image.as_str())?;
        let damaged = |source| StoreError::Damaged { image: image.to_string(), source };
        let manifest = ImageManifest::from_file(self.blob(image.hex())).map_err(damaged)?;
        let config = self.blob(manifest.config().digest().digest());
        let config = ImageConfiguration::from_file(config).map_err(damaged)?;
        let mut layers = Vec::new();
        for diff_id in config.rootfs().diff_ids().iter().rev() {
            let hex = diff_id.strip_prefix("sha256:").filter(|hex| is_digest_hex(hex));
            let layer = hex.map(|hex| self.layer(hex)).filter(|path| path.is_dir());
            layers.push(
                layer.ok_or_else(|| StoreError::MissingLayer { image: image.to_string(), layer: diff_id.clone() })?,
            );
        }
        Ok(layers)
    }

    /// Where a sandbox's files lie.
    pub(crate) fn sandbox(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }

    /// Where the files of all sandboxes lie.
    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    /// Where files lie that nobody knows the owner of.
    #[must_use]
    pub fn lost(&self) -> PathBuf {
        self.root.join("lost")
    }

    /// Where files wait for their removal.
    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    fn blob(&self, hex: &str) -> PathBuf {
        self.root.join("blobs/sha256").join(hex)
    }

    fn layer(&self, hex: &str) -> PathBuf {
        self.root.join("layers").join(hex)
    }
}

fn is_valid_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b':');
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first && name.len() <= 128 && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_image_is_refused_with_the_names_that_exist() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::create(root.path()).unwrap();
        assert_eq!(
            store.resolve("base").unwrap_err().to_string(),
            "unknown image \"base\"; the store has: no image yet"
        );
        fs::write(root.path().join("names/other"), format!("sha256:{}\n", "a".repeat(64))).unwrap();
        assert_eq!(store.resolve("base").unwrap_err().to_string(), "unknown image \"base\"; the store has: other");
        assert_eq!(store.resolve("other").unwrap().as_str(), format!("sha256:{}", "a".repeat(64)));
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_store() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::create(root.path()).unwrap();
        for name in ["", "..", "../names", "a/b", ".hidden", "A", "a b"] {
            assert!(matches!(store.resolve(name), Err(StoreError::InvalidName { .. })), "{name:?}");
        }
    }
}
