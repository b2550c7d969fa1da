//! `ostler images`: works on the host's data folder itself, as root, whether or not the host runs.

use std::path::Path;

use ostler_sandbox::store::Store;

use super::CliError;
use super::args::{Images, ImagesCommand};
use super::output::Printer;
use crate::config::Flag;

pub(super) fn execute(images: Images, printer: &mut Printer) -> Result<(), CliError> {
    if !rustix::process::geteuid().is_root() {
        return Err(CliError::NeedsRoot { command: "ostler images", why: "layers belong to root" });
    }
    let flags = images.data.map(|value| Flag { key: "host.data", value });
    let data = images.file.load(flags.into_iter().collect())?.data()?;
    match images.command {
        ImagesCommand::Import { tar, name } => {
            let digest = import(&data, &tar, &name)?;
            printer.line(&digest)
        }
        ImagesCommand::List(words) => list(&data, words.json, printer),
    }
}

/// Imports the root file system in the archive `tar` as the image `name`; gives the digest of its manifest.
fn import(data: &Path, tar: &Path, name: &str) -> Result<String, CliError> {
    let failed = |source| CliError::Images { operation: "import the image", source };
    let store = Store::create(&crate::app::store(data)).map_err(failed)?;
    let imported = store.import_rootfs_tar(tar, name).map_err(failed)?;
    Ok(imported.image.to_string())
}

/// Lists the images of the store.
fn list(data: &Path, json: bool, printer: &mut Printer) -> Result<(), CliError> {
    let failed = |source| CliError::Images { operation: "list the images", source };
    let images = Store::at(&crate::app::store(data)).list().map_err(failed)?;
    if json {
        let images: Vec<_> = images.iter().map(|(name, image)| Image { name, digest: image.as_str() }).collect();
        return printer.json(&images);
    }
    images.iter().try_for_each(|(name, image)| printer.line(&format!("{name}  {image}")))
}

/// One image, as `--json` shows it.
#[derive(serde::Serialize)]
struct Image<'a> {
    name: &'a str,
    digest: &'a str,
}
