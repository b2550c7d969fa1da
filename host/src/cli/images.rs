//! `ostler images`: works on the host's data folder itself, as who starts the host, whether or not it runs.

use std::path::Path;
use std::time::UNIX_EPOCH;

use ostler_sandbox::store::Store;
use ostler_sandbox::store::unpacker::{Bounds, Unpacker};

use super::args::{Images, ImagesCommand};
use super::output::Printer;
use super::sessions::now_ms;
use super::terminal::{ago, size};
use super::{CliError, table};
use crate::config::Flag;

pub(super) fn execute(images: Images, printer: &mut Printer) -> Result<(), CliError> {
    let flags = images.data.map(|value| Flag { key: "host.data", value });
    let data = images.file.load(flags.into_iter().collect())?.data()?;
    match images.command {
        ImagesCommand::Import { tar, name, max_size, max_entries, max_time } => {
            let bounds = Bounds { bytes: max_size.map(|size| size.0), entries: max_entries, time: max_time.0 };
            let digest = import(&data, &tar, &name, bounds)?;
            printer.line(&digest)
        }
        ImagesCommand::List(words) => list(&data, words.json, printer),
    }
}

/// Imports the root file system in the archive `tar` as the image `name`; gives the digest of its manifest.
fn import(data: &Path, tar: &Path, name: &str, bounds: Bounds) -> Result<String, CliError> {
    let failed = |source| CliError::Images { operation: "import the image", source };
    // Files of an image have many owners.
    ostler_sandbox::standing::become_root()
        .map_err(|source| CliError::WithoutRoot { command: "ostler images", source })?;
    // This program once more, by what it is and not by what now has its name.
    let unpacker = Unpacker { bounds, ..Unpacker::new("/proc/self/exe".into(), "internal-unpack") };
    let store = Store::create(&crate::app::store(data)).map_err(failed)?;
    let imported = store.import_rootfs_tar(tar, name, &unpacker).map_err(failed)?;
    Ok(imported.image.to_string())
}

/// Lists the images of the store.
fn list(data: &Path, json: bool, printer: &mut Printer) -> Result<(), CliError> {
    let failed = |source| CliError::Images { operation: "list the images", source };
    let store = Store::at(&crate::app::store(data));
    let mut images = Vec::new();
    for (name, digest) in store.list().map_err(failed)? {
        let known = store.describe(&name).map_err(failed)?;
        let since = known.named_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let imported_at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        images.push(Image { name, digest: digest.to_string(), bytes: known.bytes, imported_at_ms });
    }
    if json {
        return printer.json(&images);
    }
    if images.is_empty() {
        printer.note("there are no images yet; `ostler images import TAR --name NAME` makes one");
        return Ok(());
    }
    let text = rows(&images, now_ms());
    printer.data(&text)
}

fn rows(images: &[Image], now_ms: u64) -> String {
    let row = |image: &Image| {
        let imported = ago(image.imported_at_ms, now_ms);
        [image.name.clone(), size(image.bytes), imported, image.digest.clone()]
    };
    table::render(["IMAGE", "SIZE", "IMPORTED", "DIGEST"], images.iter().map(row))
}

/// One image, as `--json` shows it.
#[derive(serde::Serialize)]
struct Image {
    name: String,
    digest: String,
    bytes: u64,
    imported_at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_rows_without_borders() {
        let image = Image { name: "base".into(), digest: "sha256:00ff".into(), bytes: 123_456_789, imported_at_ms: 0 };
        insta::assert_snapshot!(rows(&[image], 7_300_000), @r"
        IMAGE  SIZE      IMPORTED  DIGEST
        base   123.5 MB  2 h ago   sha256:00ff
        ");
    }
}
