//! Importing archives into the image store, honest and hostile ones. Needs root, because files keep their owners.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail like tests")]

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use ostler_sandbox::store::unpacker::Unpacker;
use ostler_sandbox::store::{EntryRefusal, Imported, Store, StoreError};
use tar::{Builder, EntryType, Header};

struct Place {
    directory: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test unpacks files with their owners: run it as root");
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        Self { directory, store }
    }

    fn import(&self, archive: &Path, name: &str) -> Result<Imported, StoreError> {
        self.store.import_rootfs_tar(archive, name, &unpacker())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes an archive from a list of entries.
    fn archive(&self, name: &str, entries: &[Item]) -> PathBuf {
        let path = self.path(name);
        let mut builder = Builder::new(File::create(&path).unwrap());
        for item in entries {
            item.append(&mut builder);
        }
        builder.into_inner().unwrap();
        path
    }

    /// The directory of the only layer.
    fn layer(&self) -> PathBuf {
        let mut layers = fs::read_dir(self.path("store/layers")).unwrap();
        let layer = layers.next().expect("one layer").unwrap().path();
        assert!(layers.next().is_none());
        layer
    }

    /// Nothing half-made may be left.
    fn assert_empty(&self) {
        for directory in ["tmp", "layers", "names", "blobs/sha256"] {
            let left: Vec<_> = fs::read_dir(self.path("store").join(directory)).unwrap().flatten().collect();
            assert!(left.is_empty(), "{directory}: {left:?}");
        }
    }
}

fn unpacker() -> Unpacker {
    Unpacker::new(env!("CARGO_BIN_EXE_ostler-sandbox-launcher").into(), "unpack")
}

/// One entry, with its name as raw bytes so that a hostile one can be written.
#[derive(Clone)]
struct Item {
    kind: EntryType,
    name: &'static str,
    link: &'static str,
    content: &'static [u8],
    mode: u32,
    owner: u64,
    attribute: Option<(&'static str, &'static [u8])>,
}

fn item(kind: EntryType, name: &'static str) -> Item {
    Item { kind, name, link: "", content: b"", mode: 0o755, owner: 0, attribute: None }
}

fn file(name: &'static str, content: &'static [u8]) -> Item {
    Item { content, mode: 0o644, ..item(EntryType::Regular, name) }
}

fn link(kind: EntryType, name: &'static str, target: &'static str) -> Item {
    Item { link: target, ..item(kind, name) }
}

impl Item {
    fn append(&self, builder: &mut Builder<File>) {
        if let Some((name, value)) = self.attribute {
            builder.append_pax_extensions([(format!("SCHILY.xattr.{name}").as_str(), value)]).unwrap();
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(self.kind);
        header.as_old_mut().name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        header.as_old_mut().linkname[..self.link.len()].copy_from_slice(self.link.as_bytes());
        header.set_size(self.content.len() as u64);
        header.set_mode(self.mode);
        header.set_uid(self.owner);
        header.set_gid(self.owner);
        header.set_mtime(1_600_000_000);
        header.set_cksum();
        builder.append(&header, self.content).unwrap();
    }
}

fn honest() -> Vec<Item> {
    vec![
        Item { mode: 0o750, ..item(EntryType::Directory, "./") },
        Item { mode: 0o755, ..item(EntryType::Directory, "usr/") },
        Item { mode: 0o4755, owner: 0, ..file("usr/su", b"program") },
        Item { mode: 0o2755, owner: 42, ..file("usr/mail", b"of a group") },
        Item { owner: 65_535, attribute: Some(("user.note", b"kept")), ..file("usr/nobody", b"mine") },
        Item { attribute: Some(("security.capability", b"dropped")), ..file("usr/ping", b"raw") },
        link(EntryType::Link, "usr/again", "usr/su"),
        link(EntryType::Symlink, "bin", "usr"),
        link(EntryType::Symlink, "etc-shadow", "/etc/shadow"),
        item(EntryType::Fifo, "pipe"),
        item(EntryType::Char, "dev/null"),
        item(EntryType::Block, "dev/sda"),
        file("deep/er/file", b"parents are made"),
        file("usr/nobody2", b"first"),
        file("usr/nobody2", b"second replaces first"),
    ]
}

#[test]
fn an_archive_is_unpacked_as_it_was_packed() {
    let place = Place::new();
    let archive = place.archive("root.tar", &honest());
    let imported = place.import(&archive, "base").unwrap();
    assert!(imported.unpacked);
    assert_eq!((imported.skipped.devices, imported.skipped.attributes), (2, 1));
    let layer = place.layer();
    let of = |name: &str| fs::symlink_metadata(layer.join(name)).unwrap();
    let su = of("usr/su");
    assert_eq!((su.mode() & 0o7777, su.uid(), su.nlink(), su.mtime()), (0o4755, 0, 2, 1_600_000_000));
    let mail = of("usr/mail");
    assert_eq!((mail.mode() & 0o7777, mail.gid(), mail.mtime()), (0o2755, 42, 1_600_000_000));
    assert_eq!((of("usr/nobody").uid(), of("usr/nobody").gid()), (65_535, 65_535));
    assert_eq!(xattr::get(layer.join("usr/nobody"), "user.note").unwrap().unwrap(), b"kept");
    assert_eq!(xattr::get(layer.join("usr/ping"), "security.capability").unwrap(), None);
    assert_eq!(fs::read_link(layer.join("etc-shadow")).unwrap(), Path::new("/etc/shadow"));
    assert!(of("pipe").file_type().is_fifo());
    assert_eq!((of("").mode() & 0o7777, of("usr").mtime()), (0o750, 1_600_000_000));
    assert_eq!(fs::read(layer.join("usr/nobody2")).unwrap(), b"second replaces first");
    assert_eq!(fs::read(layer.join("deep/er/file")).unwrap(), b"parents are made");
    let mode = fs::metadata(place.path("store/layers")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "other users must not reach set-user-id programs of an image");
    assert_eq!(place.store.list().unwrap(), [("base".to_owned(), imported.image)]);
    let known = place.store.describe("base").unwrap();
    assert!(known.bytes > 0 && known.named_at <= std::time::SystemTime::now(), "{known:?}");
    assert!(place.store.describe("other").is_err());
}

#[test]
fn the_second_import_of_an_archive_changes_nothing_but_the_name() {
    let place = Place::new();
    let archive = place.archive("root.tar", &honest());
    let first = place.import(&archive, "base").unwrap();
    let layer = place.layer();
    let before = fs::metadata(&layer).unwrap().ino();
    let second = place.import(&archive, "other").unwrap();
    assert_eq!((second.image, second.unpacked), (first.image.clone(), false));
    assert_eq!(fs::metadata(&layer).unwrap().ino(), before);
    assert_eq!(place.store.resolve("other").unwrap(), place.store.resolve("base").unwrap());
    assert_eq!(place.store.resolve(first.image.as_str()).unwrap(), first.image);
}

#[test]
fn a_gzip_archive_gives_the_same_layer_and_another_image() {
    let place = Place::new();
    let plain = place.archive("root.tar", &honest());
    let packed = place.path("root.tar.gz");
    let mut encoder = GzEncoder::new(File::create(&packed).unwrap(), Compression::fast());
    encoder.write_all(&fs::read(&plain).unwrap()).unwrap();
    encoder.finish().unwrap();
    let one = place.import(&plain, "plain").unwrap();
    let two = place.import(&packed, "packed").unwrap();
    assert_ne!(one.image, two.image, "the blobs differ");
    place.layer();
    assert_eq!(place.import(&packed, "packed").unwrap().image, two.image);
}

#[test]
fn an_entry_that_could_escape_or_deceive_is_refused_by_name() {
    let up = link(EntryType::Symlink, "up", "..");
    let cases: Vec<(Vec<Item>, &str, EntryRefusal)> = vec![
        (vec![file("/etc/passwd", b"x")], "/etc/passwd", EntryRefusal::Absolute),
        (vec![file("../outside", b"x")], "../outside", EntryRefusal::Parent),
        (vec![file("a/../../outside", b"x")], "a/../../outside", EntryRefusal::Parent),
        (vec![up.clone(), file("up/outside", b"x")], "up/outside", EntryRefusal::ThroughLink),
        (vec![up.clone(), item(EntryType::Directory, "up")], "up", EntryRefusal::ThroughLink),
        (vec![up, item(EntryType::Directory, "up/new/er")], "up/new/er", EntryRefusal::ThroughLink),
        (vec![file("plain", b"x"), file("plain/below", b"x")], "plain/below", EntryRefusal::ThroughLink),
        (vec![link(EntryType::Link, "stolen", "/etc/shadow")], "stolen", EntryRefusal::Absolute),
        (vec![link(EntryType::Link, "stolen", "../../secret")], "stolen", EntryRefusal::Parent),
        (vec![link(EntryType::Link, "stolen", "absent")], "stolen", EntryRefusal::NoTarget),
        (vec![item(EntryType::Directory, "d"), link(EntryType::Link, "h", "d")], "h", EntryRefusal::NoTarget),
        (vec![item(EntryType::Directory, "d"), file("d", b"x")], "d", EntryRefusal::OverDirectory),
        (vec![file(".wh.gone", b"")], ".wh.gone", EntryRefusal::Whiteout),
        (vec![Item { owner: 65_536, ..file("far", b"x") }], "far", EntryRefusal::Owner),
        (
            vec![Item { attribute: Some(("user.overlay.redirect", b"/etc")), ..file("r", b"x") }],
            "r",
            EntryRefusal::Overlay,
        ),
        (
            vec![Item { attribute: Some(("trusted.overlay.opaque", b"y")), ..file("o", b"x") }],
            "o",
            EntryRefusal::Overlay,
        ),
    ];
    for (entries, name, why) in cases {
        let place = Place::new();
        let outside = place.path("outside");
        let archive = place.archive("root.tar", &[vec![file("before", b"fine")], entries].concat());
        match place.import(&archive, "base").unwrap_err() {
            StoreError::Entry { entry, source } => assert_eq!((entry.as_str(), source), (name, why)),
            other => panic!("{name}: {other}"),
        }
        assert!(!outside.exists() && !place.path("store/outside").exists());
        place.assert_empty();
    }
}

/// The names of files and their attributes are as long as the archive says, and are read into memory.
#[test]
fn a_header_that_would_fill_the_memory_is_refused_before_it_is_read() {
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader] {
        for (size, is_taken) in [(1usize << 20, true), ((1 << 20) + 1, false)] {
            let place = Place::new();
            let mut builder = Builder::new(File::create(place.path("root.tar")).unwrap());
            file("before", b"fine").append(&mut builder);
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_path("long").unwrap();
            header.set_size(size as u64);
            header.set_cksum();
            builder.append(&header, vec![b'x'; size].as_slice()).unwrap();
            file("after", b"fine").append(&mut builder);
            builder.into_inner().unwrap();
            let outcome = place.import(&place.path("root.tar"), "base");
            let refused = matches!(&outcome, Err(StoreError::Entry { entry, source: EntryRefusal::LongHeader }) if entry == "long");
            // One that is taken may be nonsense for other reasons.
            assert_eq!(refused, !is_taken, "{kind:?} of {size}: {outcome:?}");
            if refused {
                place.assert_empty();
            }
        }
    }
}

#[test]
fn what_is_no_archive_is_said_to_be_none() {
    let place = Place::new();
    fs::write(place.path("text"), "just some words\n".repeat(100)).unwrap();
    fs::write(place.path("empty"), "").unwrap();
    let whole = place.archive("root.tar", &[file("big", &[7; 4096])]);
    fs::write(place.path("torn"), &fs::read(whole).unwrap()[..2000]).unwrap();
    fs::write(place.path("torn.gz"), [0x1f, 0x8b, 8, 0, 1, 2]).unwrap();
    for name in ["text", "empty", "torn", "torn.gz", "store"] {
        let refused = place.import(&place.path(name), "base").unwrap_err();
        assert!(refused.to_string().contains(&format!("{name} is not a complete tar archive")), "{name}: {refused}");
        assert!(refused.source().is_some());
        place.assert_empty();
    }
    let absent = place.import(&place.path("absent"), "base").unwrap_err();
    assert!(matches!(absent, StoreError::Io { operation: "open archive", .. }), "{absent}");
}

#[test]
fn what_a_crash_left_is_gone_after_the_next_import() {
    let place = Place::new();
    fs::create_dir_all(place.path("store/tmp/abc.layer/half/made")).unwrap();
    fs::write(place.path("store/tmp/blob"), "half").unwrap();
    let archive = place.archive("root.tar", &[file("a", b"b")]);
    place.import(&archive, "base").unwrap();
    assert_eq!(fs::read_dir(place.path("store/tmp")).unwrap().count(), 0);
}

#[test]
fn only_one_import_runs_at_a_time() {
    let place = Place::new();
    let lock = File::create(place.path("store/import.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let archive = place.archive("root.tar", &[file("a", b"b")]);
    assert!(matches!(place.import(&archive, "base"), Err(StoreError::Busy { .. })));
}

#[test]
fn a_full_disk_is_said_to_be_full_and_leaves_nothing() {
    let place = Place::new();
    let archive = place.archive("root.tar", &[file("big", &[7; 3 << 20])]);
    let small = place.path("store/tmp");
    rustix::mount::mount("small", &small, "tmpfs", rustix::mount::MountFlags::empty(), Some(c"size=1m")).unwrap();
    let refused = place.import(&archive, "base").unwrap_err();
    rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(matches!(refused, StoreError::NoSpace { .. }), "{refused}");
    place.assert_empty();
}

/// The copy of the archive still fits, what is unpacked does not: one byte takes a page.
#[test]
fn a_disk_that_is_full_of_what_was_unpacked_is_said_to_be_full_and_leaves_nothing() {
    let place = Place::new();
    let names: Vec<&'static str> = (0..300).map(|number| &*format!("file{number}").leak()).collect();
    let archive = place.archive("root.tar", &names.iter().map(|name| file(name, b"x")).collect::<Vec<_>>());
    let small = place.path("store/tmp");
    rustix::mount::mount("small", &small, "tmpfs", rustix::mount::MountFlags::empty(), Some(c"size=1m")).unwrap();
    let refused = place.import(&archive, "base").unwrap_err();
    rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).unwrap();
    let StoreError::NoSpace { path } = refused else { panic!("{refused}") };
    assert!(path.to_string_lossy().contains(".layer/file"), "{path:?}");
    place.assert_empty();
}

#[test]
fn an_archive_that_becomes_more_than_it_may_is_refused_with_what_it_may_and_leaves_nothing() {
    let zeros = vec![0; 3 << 20].leak();
    let gzip = |place: &Place, from: &Path| {
        let packed = place.path("packed");
        let mut encoder = GzEncoder::new(File::create(&packed).unwrap(), Compression::best());
        encoder.write_all(&fs::read(from).unwrap()).unwrap();
        encoder.finish().unwrap();
        packed
    };
    // One file, several together, and the same packed.
    for (entries, is_packed) in [
        (vec![file("one", zeros)], false),
        (vec![file("one", &zeros[..1 << 20]), file("two", &zeros[..1 << 20]), file("three", b"x")], false),
        (vec![file("one", zeros)], true),
    ] {
        let place = Place::new();
        let mut archive = place.archive("root.tar", &entries);
        if is_packed {
            archive = gzip(&place, &archive);
        }
        let mut unpacker = unpacker();
        unpacker.bounds.bytes = Some(2 << 20);
        let refused = place.store.import_rootfs_tar(&archive, "base", &unpacker).unwrap_err();
        assert!(matches!(refused, StoreError::TooLarge { bytes: 0x20_0000, .. }), "{refused}");
        place.assert_empty();
        unpacker.bounds.bytes = None;
        place.store.import_rootfs_tar(&archive, "base", &unpacker).unwrap();
    }
}

#[test]
fn names_count_also_those_of_folders_that_are_made_on_the_way() {
    let entries = [file("a/b/c/d", b"x"), file("a/b/c/e", b"x")];
    for (most, is_enough) in [(4, false), (5, true)] {
        let place = Place::new();
        let archive = place.archive("root.tar", &entries);
        let mut unpacker = unpacker();
        unpacker.bounds.entries = most;
        let outcome = place.store.import_rootfs_tar(&archive, "base", &unpacker);
        assert_eq!(outcome.is_ok(), is_enough, "{most}: {outcome:?}");
        if !is_enough {
            assert!(matches!(outcome, Err(StoreError::TooMany { entries: 4, .. })), "{outcome:?}");
            place.assert_empty();
        }
    }
}

#[test]
fn a_pipe_is_no_archive_and_nobody_waits_for_it() {
    let place = Place::new();
    let pipe = place.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let refused = place.import(&pipe, "base").unwrap_err();
    assert!(matches!(refused, StoreError::NotATar { .. }), "{refused}");
    place.assert_empty();
}

/// However deep its folders are in each other when it turns out to be refused.
#[test]
fn what_was_unpacked_of_a_refused_archive_is_removed_with_all_its_folders() {
    let place = Place::new();
    let path = place.path("root.tar");
    let mut builder = Builder::new(File::create(&path).unwrap());
    let mut header = Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o755);
    let (mut uid, mut deep) = (0, "d/".repeat(1900));
    for _ in 0..2 {
        header.set_uid(uid);
        header.set_gid(0);
        builder.append_data(&mut header, &deep, &b""[..]).unwrap();
        (uid, deep) = (70_000, "last".to_owned());
    }
    builder.into_inner().unwrap();
    let refused = place.import(&path, "base").unwrap_err();
    assert!(matches!(refused, StoreError::Entry { source: EntryRefusal::Owner, .. }), "{refused:?}");
    place.assert_empty();
}

#[test]
fn without_the_program_that_unpacks_or_with_one_that_does_not_nothing_is_imported() {
    let place = Place::new();
    let archive = place.archive("root.tar", &[file("a", b"b")]);
    for (program, said) in [("/absent/program", "start a process for"), ("/bin/true", "ended without a word")] {
        let unpacker = Unpacker { program: program.into(), ..unpacker() };
        let refused = place.store.import_rootfs_tar(&archive, "base", &unpacker).unwrap_err();
        assert!(refused.to_string().contains(said), "{program}: {refused}");
        place.assert_empty();
    }
}
