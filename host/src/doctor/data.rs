//! Is the data folder one that this version can use?

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ostler_sandbox::store::Store;

use super::context::Looker;
use super::finding::{Check, Finding};
use crate::api::{TokenError, load_token};
use crate::app::Layout;
use crate::store::{StoreError, check_formats};
use crate::telemetry::chain;

/// The folder itself.
enum Folder {
    Missing,
    NotOne,
    /// A folder in it that its owner may not write to.
    Closed(PathBuf),
    Fine,
    Hidden(String),
}

/// Who holds a lock.
#[derive(Clone, Copy)]
enum Lock {
    Free,
    Held(u32),
    Hidden,
}

pub(super) fn examine(layout: &Layout, looker: Looker) -> Vec<Check> {
    let data = layout.data();
    let folder = look(layout);
    let found = folder_finding(data, &folder).of("data.folder");
    if matches!(folder, Folder::Missing | Folder::NotOne) {
        return vec![found];
    }
    let (host, launcher) = (holder(&layout.lock()), holder(&layout.launcher_lock()));
    let formats = check_formats(&layout.index(), &layout.sessions());
    let lost = Store::at(&layout.store()).lost();
    vec![
        found,
        version(&formats, looker).of("data.version"),
        lock(host).of("data.lock"),
        launcher_finding(host, launcher).of("data.launcher"),
        lost_finding(&lost, fs::read_dir(&lost).map(Iterator::count)).of("data.lost"),
        token(&load_token(&layout.token()).map(drop), looker).of("data.token"),
    ]
}

fn look(layout: &Layout) -> Folder {
    match fs::metadata(layout.data()) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Folder::Missing,
        Err(error) => return Folder::Hidden(error.to_string()),
        Ok(found) if !found.is_dir() => return Folder::NotOne,
        Ok(_) => {}
    }
    let folders = [layout.data().to_owned(), layout.sessions(), layout.blobs(), layout.repositories()];
    let closed = |folder: &PathBuf| fs::metadata(folder).is_ok_and(|found| found.mode() & 0o300 != 0o300);
    folders.into_iter().find(closed).map_or(Folder::Fine, Folder::Closed)
}

fn folder_finding(data: &Path, folder: &Folder) -> Finding {
    let data = data.display();
    match folder {
        Folder::Fine => Finding::ok(data.to_string()),
        Folder::Missing => Finding::ok(format!("{data} is made at the first start or import")),
        Folder::NotOne => Finding::failed(format!("{data} is no folder"), "choose another `--data`"),
        Folder::Hidden(why) => Finding::skipped(format!("{data} cannot be looked at: {why}")),
        Folder::Closed(folder) => {
            let folder = folder.display();
            Finding::failed(format!("{folder} is not writable by its owner"), format!("chmod u+wx {folder}"))
        }
    }
}

fn version(formats: &Result<usize, StoreError>, looker: Looker) -> Finding {
    match formats {
        Ok(0) => Finding::ok("there is no database yet"),
        Ok(1) => Finding::ok("1 database of a format that this version knows"),
        Ok(seen) => Finding::ok(format!("{seen} databases of formats that this version knows")),
        Err(error @ StoreError::Newer { .. }) => {
            Finding::failed(error.to_string(), "install the newer ostler that wrote it, or choose another `--data`")
        }
        Err(StoreError::List { source, .. } | StoreError::Look { source, .. })
            if source.kind() == ErrorKind::PermissionDenied && looker == Looker::Another =>
        {
            Finding::skipped("only root and the host may read the databases")
        }
        Err(error) => Finding::failed(chain(error), "check the disk and the permissions of the data folder"),
    }
}

/// Who holds a lock, from the kernel's list: taking it to find out would make a host fail that starts at this moment.
fn holder(path: &Path) -> Lock {
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Lock::Free,
        Err(_) => return Lock::Hidden,
        Ok(found) => found,
    };
    let Ok(table) = fs::read_to_string("/proc/locks") else { return Lock::Hidden };
    let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    holder_in(&table, &format!("{major:02x}:{minor:02x}:{}", found.ino())).map_or(Lock::Free, Lock::Held)
}

fn holder_in(table: &str, file: &str) -> Option<u32> {
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // One that waits is marked by an arrow in place of the kind.
    let held = fields.filter(|fields| fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&file));
    held.filter_map(|fields| fields.get(4)?.parse().ok()).next()
}

fn lock(host: Lock) -> Finding {
    match host {
        Lock::Free => Finding::ok("no host uses it"),
        Lock::Held(process) => Finding::ok(format!("used by the host that runs (process {process})")),
        Lock::Hidden => Finding::skipped("only root can see whether a host uses it"),
    }
}

fn launcher_finding(host: Lock, launcher: Lock) -> Finding {
    match (host, launcher) {
        (Lock::Hidden, _) | (_, Lock::Hidden) => Finding::skipped("only root can see whether a launcher lives"),
        (_, Lock::Free) => Finding::ok("none is left of an earlier host"),
        (Lock::Held(_), Lock::Held(process)) => Finding::ok(format!("it lives (process {process})")),
        (Lock::Free, Lock::Held(process)) => Finding::warning(
            format!("the launcher of a host that is gone still lives (process {process})"),
            "ostler up, which takes it over with what runs in it; without a host it ends after a minute",
        ),
    }
}

fn lost_finding(lost: &Path, count: std::io::Result<usize>) -> Finding {
    match count {
        Ok(0) => Finding::ok("nothing"),
        Ok(count) => Finding::warning(
            format!("files of {count} {} whose record is damaged", if count == 1 { "sandbox" } else { "sandboxes" }),
            format!("look at {} for what is worth keeping, then remove it", lost.display()),
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => Finding::ok("nothing"),
        Err(_) => Finding::skipped("only root may look"),
    }
}

fn token(read: &Result<(), TokenError>, looker: Looker) -> Finding {
    match read {
        Ok(()) => Finding::ok("only its owner may read it"),
        Err(TokenError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Finding::ok("it is made at the first start")
        }
        Err(TokenError::Read { source, .. })
            if source.kind() == ErrorKind::PermissionDenied && looker == Looker::Another =>
        {
            Finding::ok("this user may not read it")
        }
        Err(error) => {
            let (TokenError::Read { path, .. }
            | TokenError::Create { path, .. }
            | TokenError::Exposed { path, .. }
            | TokenError::Malformed { path }) = error;
            Finding::failed(chain(error), format!("rm {}, and start the host again to get a new one", path.display()))
        }
    }
}

#[cfg(test)]
pub(super) fn examples() -> Vec<Check> {
    let data = Path::new("/var/lib/ostler");
    let folders = [
        Folder::Fine,
        Folder::Missing,
        Folder::NotOne,
        Folder::Closed(data.join("sessions")),
        Folder::Hidden("Permission denied (os error 13)".into()),
    ];
    let mut all: Vec<Check> = folders.iter().map(|folder| folder_finding(data, folder).of("data.folder")).collect();
    let denied = || std::io::Error::from(ErrorKind::PermissionDenied);
    let list = || Err(StoreError::List { path: data.join("sessions"), source: denied() });
    for (formats, looker) in [
        (Ok(0), Looker::Root),
        (Ok(1), Looker::Root),
        (Ok(7), Looker::Root),
        (Err(StoreError::Newer { path: data.join("index/index.db"), found: 2, known: 1 }), Looker::Root),
        (list(), Looker::Root),
        (list(), Looker::Another),
    ] {
        all.push(version(&formats, looker).of("data.version"));
    }
    all.extend([Lock::Free, Lock::Held(4711), Lock::Hidden].map(|host| lock(host).of("data.lock")));
    let (free, held) = (Lock::Free, Lock::Held(4712));
    for (host, launcher) in [(free, free), (held, held), (free, held), (Lock::Hidden, free)] {
        all.push(launcher_finding(host, launcher).of("data.launcher"));
    }
    let lost = data.join("store/lost");
    for count in [Ok(0), Ok(1), Ok(2), Err(denied())] {
        all.push(lost_finding(&lost, count).of("data.lost"));
    }
    let path = data.join("token");
    let read = |kind: ErrorKind| TokenError::Read { path: path.clone(), source: kind.into() };
    for (read, looker) in [
        (Ok(()), Looker::Root),
        (Err(read(ErrorKind::NotFound)), Looker::Root),
        (Err(read(ErrorKind::PermissionDenied)), Looker::Another),
        (Err(TokenError::Exposed { path: path.clone(), mode: 0o644 }), Looker::Root),
        (Err(TokenError::Malformed { path: path.clone() }), Looker::Root),
    ] {
        all.push(token(&read, looker).of("data.token"));
    }
    all
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_lock_is_found_by_its_file_and_one_that_only_waits_is_not() {
        let table = "1: FLOCK  ADVISORY  WRITE 9784 fe:00:108 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 9 fe:00:108 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 7 fe:00:109 0 EOF\n";
        assert_eq!(super::holder_in(table, "fe:00:108"), Some(9784));
        assert_eq!(super::holder_in(table, "fe:00:109"), None);
    }
}
