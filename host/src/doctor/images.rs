//! Is there something to make sandboxes from, and is it recent?

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ostler_sandbox::store::{Store, StoreError};

use super::context::Looker;
use super::finding::{Check, Finding};
use crate::telemetry::chain;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// An older image lacks security updates.
const OLD_DAYS: u64 = 30;

pub(super) fn examine(store: &Path, data: &Path, name: &str, looker: Looker) -> Vec<Check> {
    // Layers are out of reach for everybody but root and the one whose store it is.
    let own = |found: Metadata| found.uid() == rustix::process::geteuid().as_raw();
    let may_look = looker == Looker::Root || fs::metadata(store).is_ok_and(own);
    let store = Store::at(store);
    let image = store.resolve(name).and_then(|image| match may_look {
        true => store.check(&image).map(|()| image),
        false => Ok(image),
    });
    let mut checks = vec![present(&image.as_ref().map(|image| image.as_str()), name, data).of("images.present")];
    if image.is_ok() {
        let age = store.imported_at(name).map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        checks.push(age_finding(age.ok(), name, data).of("images.age"));
    }
    checks
}

/// How an image is made anew.
fn import(name: &str, data: &Path) -> String {
    format!(
        "make a root file system (`cargo xtask setup` makes one), then: ostler images import ROOTFS.tar --name {name} \
         --data {}",
        data.display()
    )
}

fn present(image: &Result<&str, &StoreError>, name: &str, data: &Path) -> Finding {
    match image {
        Ok(digest) => Finding::ok(format!("`{name}` is {}", digest.get(..19).unwrap_or(digest))),
        Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
            Finding::skipped("this user may not look into the store")
        }
        Err(error) => Finding::failed(chain(*error), import(name, data)),
    }
}

fn age_finding(age: Option<Duration>, name: &str, data: &Path) -> Finding {
    match age.map(|age| age.as_secs() / DAY.as_secs()) {
        None => Finding::skipped("when it was imported is not known"),
        Some(0) => Finding::ok("imported today"),
        Some(days) if days <= OLD_DAYS => Finding::ok(format!("imported {days} days ago")),
        Some(days) => Finding::warning(
            format!("imported {days} days ago: security updates since then are missing"),
            import(name, data),
        ),
    }
}

#[cfg(test)]
pub(super) fn examples() -> Vec<Check> {
    let data = Path::new("/var/lib/ostler");
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let unknown = StoreError::UnknownImage { name: "base".into(), known: Vec::new() };
    let missing = StoreError::MissingLayer { image: digest.clone(), layer: "sha256:00".into() };
    let hidden = StoreError::Io {
        operation: "read image name",
        path: data.join("store/names/base"),
        source: ErrorKind::PermissionDenied.into(),
    };
    let images = [Ok(digest.as_str()), Err(&unknown), Err(&missing), Err(&hidden)];
    let mut all: Vec<Check> = images.iter().map(|image| present(image, "base", data).of("images.present")).collect();
    for age in [None, Some(DAY / 2), Some(DAY * 30), Some(DAY * 31)] {
        all.push(age_finding(age, "base", data).of("images.age"));
    }
    all
}
