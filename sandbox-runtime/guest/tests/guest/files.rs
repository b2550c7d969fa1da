//! Files of the workspace, seen through the protocol: what is inside, what is not, and what only looks like it.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use crate::host::Host;
use crate::support::GuestProcess;
use ostler_wire::guest::{Entry, EntryKind, MAX_FILE, Reply, Request};
use ostler_wire::{Failure, FailureKind, MAX_MESSAGE};
use rustix::fs::{CWD, FileType, MemfdFlags, Mode, memfd_create, mknodat};

struct Place {
    host: Host,
    guest: GuestProcess,
    root: PathBuf,
}

fn start() -> Place {
    let guest = GuestProcess::start();
    let host = Host::connect(guest.control.as_ref().unwrap(), 1);
    let root = guest.workspace();
    fs::write(guest.root.path().join("secret"), "outside").unwrap();
    Place { host, guest, root }
}

impl Place {
    fn read(&mut self, path: &str) -> Result<(String, u64, u32), Failure> {
        let (answer, descriptor) = self.host.ask_with(Request::Open { path: path.into() }, None);
        match answer? {
            Reply::Opened { size, mode } => {
                let mut text = String::new();
                fs::File::from(descriptor.unwrap()).read_to_string(&mut text).unwrap();
                Ok((text, size, mode))
            }
            other => panic!("unexpected answer {other:?}"),
        }
    }

    fn write(&mut self, path: &str, content: &[u8]) -> Result<Reply, Failure> {
        let file = memfd_create("content", MemfdFlags::CLOEXEC).unwrap();
        let mut file = fs::File::from(file);
        file.write_all(content).unwrap();
        self.host.ask_with(Request::Write { path: path.into(), mode: 0o640 }, Some(file.as_fd())).0
    }

    fn list(&mut self, path: &str, max: u32) -> Result<(Vec<Entry>, bool), Failure> {
        match self.host.ask(Request::List { path: path.into(), max })? {
            Reply::Listing { entries, truncated } => Ok((entries, truncated)),
            other => panic!("unexpected answer {other:?}"),
        }
    }

    fn kind(result: Result<impl std::fmt::Debug, Failure>) -> FailureKind {
        result.unwrap_err().kind
    }
}

#[test]
fn a_regular_file_is_read_by_relative_and_by_absolute_path() {
    let mut place = start();
    fs::create_dir(place.root.join("sub")).unwrap();
    fs::write(place.root.join("sub/a.txt"), "hello").unwrap();
    fs::set_permissions(place.root.join("sub/a.txt"), fs::Permissions::from_mode(0o754)).unwrap();
    symlink("sub/../sub/a.txt", place.root.join("link")).unwrap();
    let absolute = place.root.join("sub/a.txt").to_str().unwrap().to_owned();
    for path in ["sub/a.txt", "./sub//a.txt", "sub/../sub/a.txt", "link", absolute.as_str()] {
        assert_eq!(place.read(path).unwrap(), ("hello".into(), 5, 0o754), "{path}");
    }
}

#[test]
fn paths_that_lead_outside_are_refused_for_every_request() {
    let mut place = start();
    let secret = place.guest.root.path().join("secret");
    symlink("../secret", place.root.join("relative")).unwrap();
    symlink(&secret, place.root.join("absolute")).unwrap();
    symlink("..", place.root.join("up")).unwrap();
    symlink("/proc/self/root/etc/passwd", place.root.join("magic")).unwrap();
    let cases = [
        "../secret",
        "relative",
        "absolute",
        "up/secret",
        "magic",
        "/etc/passwd",
        "sub/../../secret",
        secret.to_str().unwrap(),
    ];
    fs::create_dir(place.root.join("sub")).unwrap();
    for path in cases {
        let refused = place.read(path).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Outside, "{path}: {refused}");
        assert!(refused.detail.contains("outside the workspace"), "{refused}");
        assert_eq!(Place::kind(place.write(path, b"x")), FailureKind::Outside, "{path}");
        assert_eq!(Place::kind(place.list(path, 10)), FailureKind::Outside, "{path}");
    }
    assert_eq!(Place::kind(place.write("up/new", b"x")), FailureKind::Outside);
    assert_eq!(Place::kind(place.write("../new/deep", b"x")), FailureKind::Outside);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "outside");
    let mut left: Vec<_> =
        fs::read_dir(place.guest.root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["secret", "workspace"]);
}

#[test]
fn only_regular_files_are_opened_and_replaced() {
    let mut place = start();
    fs::create_dir(place.root.join("directory")).unwrap();
    mknodat(CWD, place.root.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(place.root.join("socket")).unwrap();
    for path in ["directory", "fifo", "socket", ""] {
        assert_eq!(Place::kind(place.read(path)), FailureKind::Invalid, "{path}");
        assert_eq!(Place::kind(place.write(path, b"x")), FailureKind::Invalid, "{path}");
    }
    for path in ["directory/", "directory/..", "new/", "."] {
        assert_eq!(Place::kind(place.write(path, b"x")), FailureKind::Invalid, "{path}");
    }
    assert_eq!(Place::kind(place.read("nothing")), FailureKind::NotFound);
    assert_eq!(Place::kind(place.list("nothing", 10)), FailureKind::NotFound);
    assert_eq!(Place::kind(place.list("fifo", 10)), FailureKind::Invalid);
    assert_eq!(Place::kind(place.read("fifo/x")), FailureKind::Invalid);
}

#[test]
fn a_write_replaces_the_whole_file_and_keeps_its_mode() {
    let mut place = start();
    let path = place.root.join("a");
    fs::write(&path, "a long old content").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut reader = fs::File::open(&path).unwrap();
    place.write("a", b"new").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
    // Who had the old file open still reads the old content: it was replaced, not overwritten.
    let mut old = String::new();
    reader.read_to_string(&mut old).unwrap();
    assert_eq!(old, "a long old content");
    let names: Vec<_> = fs::read_dir(&place.root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["a"], "no temporary file stays");
}

#[test]
fn a_write_makes_the_file_and_its_parents() {
    let mut place = start();
    let large = vec![b'z'; 3 * 1024 * 1024];
    place.write("x/y/z/file", &large).unwrap();
    let path = place.root.join("x/y/z/file");
    assert_eq!(fs::read(&path).unwrap(), large);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    place.write("empty", b"").unwrap();
    assert_eq!(fs::read(place.root.join("empty")).unwrap(), b"");
    fs::write(place.root.join("plain"), "").unwrap();
    assert_eq!(Place::kind(place.write("plain/x", b"x")), FailureKind::Invalid);
}

#[test]
fn a_write_goes_through_a_link_that_stays_inside() {
    let mut place = start();
    fs::create_dir_all(place.root.join("sub/deep")).unwrap();
    fs::write(place.root.join("sub/real"), "old").unwrap();
    symlink("../../sub/real", place.root.join("sub/deep/link")).unwrap();
    symlink("sub/deep/link", place.root.join("first")).unwrap();
    symlink("sub/new", place.root.join("dangling")).unwrap();
    symlink("circle", place.root.join("circle")).unwrap();
    place.write("first", b"new").unwrap();
    place.write("dangling", b"made").unwrap();
    assert_eq!(fs::read_to_string(place.root.join("sub/real")).unwrap(), "new");
    assert_eq!(fs::read_to_string(place.root.join("sub/new")).unwrap(), "made");
    for link in ["first", "sub/deep/link", "dangling"] {
        assert!(fs::symlink_metadata(place.root.join(link)).unwrap().is_symlink(), "{link}");
    }
    assert_eq!(Place::kind(place.write("circle", b"x")), FailureKind::Invalid);
}

#[test]
fn a_write_with_unusable_content_is_refused_and_changes_nothing() {
    let mut place = start();
    fs::write(place.root.join("a"), "old").unwrap();
    let write = |mode| Request::Write { path: "a".into(), mode };
    assert_eq!(Place::kind(place.host.ask(write(0o644))), FailureKind::Invalid);
    let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
    assert_eq!(Place::kind(place.host.ask_with(write(0o644), Some(socket.as_fd())).0), FailureKind::Invalid);
    let file = memfd_create("content", MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(Place::kind(place.host.ask_with(write(0o4755), Some(file.as_fd())).0), FailureKind::Invalid);
    rustix::fs::ftruncate(&file, MAX_FILE + 1).unwrap();
    assert_eq!(Place::kind(place.host.ask_with(write(0o644), Some(file.as_fd())).0), FailureKind::Limit);
    assert_eq!(fs::read_to_string(place.root.join("a")).unwrap(), "old");
}

#[test]
fn a_listing_is_sorted_and_tells_kinds_and_sizes() {
    let mut place = start();
    fs::create_dir(place.root.join("b")).unwrap();
    fs::write(place.root.join("c"), "12345").unwrap();
    symlink("/nowhere", place.root.join("a")).unwrap();
    mknodat(CWD, place.root.join("d"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let entry = |name: &str, kind, size| Entry { name: name.into(), kind, size };
    let all = [
        entry("a", EntryKind::Symlink, 0),
        entry("b", EntryKind::Directory, 0),
        entry("c", EntryKind::File, 5),
        entry("d", EntryKind::Other, 0),
    ];
    assert_eq!(place.list("", 10).unwrap(), (all.to_vec(), false));
    assert_eq!(place.list(".", 4).unwrap(), (all.to_vec(), false));
    assert_eq!(place.list("", 2).unwrap(), (all[..2].to_vec(), true));
    assert_eq!(place.list("", 0).unwrap(), (vec![], true));
    assert_eq!(place.list("b", 10).unwrap(), (vec![], false));
}

#[test]
fn a_listing_that_does_not_fit_one_message_is_cut() {
    let mut place = start();
    let name = |number: u32| format!("{number:04}{}", "n".repeat(240));
    for number in 0..400 {
        fs::write(place.root.join(name(number)), "").unwrap();
    }
    let (entries, truncated) = place.list("", u32::MAX).unwrap();
    assert!(truncated);
    assert!(entries.len() > 200 && entries.len() * 244 < MAX_MESSAGE, "{}", entries.len());
    let names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, (0..).map(name).take(names.len()).collect::<Vec<_>>());
}

#[test]
fn a_workspace_that_does_not_exist_yet_is_not_found() {
    let mut place = start();
    fs::remove_dir(&place.root).unwrap();
    assert_eq!(Place::kind(place.read("a")), FailureKind::NotFound);
    assert_eq!(Place::kind(place.write("a", b"x")), FailureKind::NotFound);
    assert_eq!(Place::kind(place.list("", 10)), FailureKind::NotFound);
    fs::create_dir(&place.root).unwrap();
    assert_eq!(place.list("", 10).unwrap(), (vec![], false));
}

#[test]
fn many_writes_at_once_all_succeed_or_say_that_they_are_too_many() {
    let mut place = start();
    let file = memfd_create("content", MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&file, b"content").unwrap();
    let ids: Vec<(u64, String)> = (0..40)
        .map(|number| {
            let path = format!("file{number}");
            (place.host.send(Request::Write { path: path.clone(), mode: 0o600 }, Some(file.as_fd())), path)
        })
        .collect();
    let mut answers = std::collections::HashMap::new();
    while answers.len() < ids.len() {
        let (message, _) = place.host.receive();
        let ostler_wire::guest::Message::Reply(result) = message.body else { panic!("unexpected event") };
        answers.insert(message.id, result);
    }
    for (id, path) in ids {
        match &answers[&id] {
            Ok(Reply::Done) => assert_eq!(fs::read(place.root.join(path)).unwrap(), b"content"),
            Err(failure) => assert_eq!(failure.kind, FailureKind::Limit),
            other => panic!("unexpected answer {other:?}"),
        }
    }
}
