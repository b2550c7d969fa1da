//! Makes an attempt with all defences, then with one after the other left out, then with none.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use ostler_sandbox::defence::{Defence, Weakened};
use ostler_wire::launcher::Files;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::net::{RecvFlags, recv};

use crate::inside::{Inside, Outcome, program};
use crate::row::{Attempt, Planted, Row, Without};
use crate::support::{Bench, LIMITS, ask, readable, stand_in, words};
use crate::{files, kernel, machine, processes};

/// All rows, by theme.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    [kernel::ROWS, files::ROWS, processes::ROWS, machine::ROWS].into_iter().flatten()
}

/// Got through with what, or stopped by what.
type Outcomes = Result<String, String>;

/// Runs the row of this name as it must be run.
pub async fn check(name: &str) {
    let row = rows().find(|row| row.name == name).unwrap_or_else(|| panic!("no row is called {name}"));
    must(row, &[], false).await;
    if row.defences.len() > 1 {
        for defence in row.defences {
            must(row, &[*defence], false).await;
        }
    }
    if !row.defences.is_empty() {
        must(row, row.defences, matches!(row.without, Without::Through)).await;
    }
}

async fn must(row: &Row, left_out: &[Defence], get_through: bool) {
    let outcome = attempt(&row.attempt, left_out).await;
    assert_eq!(outcome.is_ok(), get_through, "{} without {left_out:?}: {outcome:?}", row.name);
}

fn bench(left_out: &[Defence], guest: Option<&Path>) -> Bench {
    Bench::with(|config| {
        config.guest = guest.map(Path::to_owned);
        config.weakened = Weakened(left_out.to_vec());
    })
}

fn outcome(outcome: Outcome) -> Outcomes {
    match outcome.status {
        0 => Ok(outcome.said),
        1 => Err(outcome.said),
        _ => panic!("the attempt was not made: {outcome:?}"),
    }
}

async fn attempt(attempt: &Attempt, left_out: &[Defence]) -> Outcomes {
    match attempt {
        Attempt::Command(arguments) => command(left_out, arguments).await,
        Attempt::Restored(planted, arguments) => restored(left_out, *planted, arguments).await,
        Attempt::Link(name) => link(left_out, name).await,
        Attempt::EndlessUsers => endless_users(left_out).await,
        Attempt::ForeignDirectory => foreign_directory(left_out).await,
        Attempt::GuestProgram => guest_program(left_out).await,
        Attempt::AbstractSocket => {
            use std::os::linux::net::SocketAddrExt;
            let name = format!("ostler-escapes-{}", std::process::id());
            let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
            let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
            command(left_out, &["abstract_socket", &name]).await
        }
        Attempt::SharedMemory => {
            let segment = Segment::make();
            command(left_out, &["shared_memory", &segment.key.to_string()]).await
        }
    }
}

async fn command(left_out: &[Defence], arguments: &[&str]) -> Outcomes {
    let bench = bench(left_out, None);
    let (launcher, _) = bench.connect(1).await;
    let inside = Inside::make(&bench, &launcher, &bench.id(1)).await;
    outcome(inside.run(&[&["try"], arguments].concat()).await)
}

async fn restored(left_out: &[Defence], planted: Planted, arguments: &[&str]) -> Outcomes {
    let bench = bench(left_out, None);
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    let first = Inside::make(&bench, &launcher, &id).await;
    let base = first.sandbox.uid_base;
    launcher.destroy(&id, Files::Keep).await.unwrap();
    let upper = bench.files(&id).join("upper");
    plant(&upper, base, planted);
    let inside = Inside::make(&bench, &launcher, &id).await;
    assert!(inside.sandbox.restored);
    outcome(inside.run(&[&["try"], arguments].concat()).await)
}

fn plant(upper: &Path, base: u32, planted: Planted) {
    let place = upper.join("workspace/planted");
    let copy = |mode: u32| {
        fs::copy(program(), &place).unwrap();
        chown(&place, Some(base), Some(base)).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
    };
    match planted {
        Planted::SetUid => copy(0o4755),
        Planted::Capability => {
            copy(0o755);
            // Version 2, effective; permitted: CAP_CHOWN, which the sandbox has.
            let mut value = [0u8; 20];
            value[..8].copy_from_slice(&[1, 0, 0, 2, 1, 0, 0, 0]);
            xattr::set(&place, "security.capability", &value).unwrap();
        }
        Planted::Device => {
            // /dev/zero, which the control group allows.
            let mode = Mode::from_raw_mode(0o666);
            mknodat(CWD, &place, FileType::CharacterDevice, mode, makedev(1, 5)).unwrap();
            fs::set_permissions(&place, fs::Permissions::from_mode(0o666)).unwrap();
        }
        Planted::NullLink => {
            fs::create_dir_all(upper.join("dev")).unwrap();
            symlink("/etc/hostname", upper.join("dev/null")).unwrap();
        }
    }
}

async fn link(left_out: &[Defence], name: &str) -> Outcomes {
    let bench = bench(left_out, Some(stand_in()));
    let (launcher, _) = bench.connect(1).await;
    let trap = bench.directory.path().join("trap");
    fs::create_dir(&trap).unwrap();
    let id = bench.id(1);
    bench.create(&launcher, &id).await;
    launcher.destroy(&id, Files::Keep).await.unwrap();
    let place = bench.files(&id).join("upper").join(name);
    let _ = fs::remove_dir_all(&place);
    symlink(&trap, &place).unwrap();
    let made = launcher.create(&id, &bench.image, LIMITS, Duration::from_secs(20)).await;
    assert_eq!(fs::read_dir(&trap).unwrap().count(), 0, "outside is untouched whatever is left out");
    made.map(|_| format!("it lives, and /{name} is a link")).map_err(|error| words(&error))
}

async fn endless_users(left_out: &[Defence]) -> Outcomes {
    let bench = bench(left_out, Some(stand_in()));
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    let deadline = Duration::from_secs(3);
    bench.create(&launcher, &id).await;
    launcher.destroy(&id, Files::Keep).await.unwrap();
    let etc = bench.files(&id).join("upper/etc");
    fs::create_dir_all(&etc).unwrap();
    for name in ["nsswitch.conf", "passwd", "group"] {
        // Whoever opens one waits for ever.
        mknodat(CWD, etc.join(name), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    }
    match launcher.create(&id, &bench.image, LIMITS, deadline).await {
        Ok(_) => Err("nobody opened them".to_owned()),
        Err(error) => {
            let words = words(&error);
            assert!(words.contains("the deadline passed"), "{words}");
            Ok("its maker hangs".to_owned())
        }
    }
}

/// Through every descriptor that PID 1 might have.
async fn foreign_directory(left_out: &[Defence]) -> Outcomes {
    let bench = bench(left_out, Some(stand_in()));
    let (launcher, _) = bench.connect(1).await;
    let started = bench.create(&launcher, &bench.id(1)).await;
    let secret = "/etc/os-release";
    let answers = (3..40).map(|number| ask(&started.control, &format!("read /proc/self/fd/{number}{secret}")));
    let found = answers.into_iter().find(|answer| answer.starts_with("ok"));
    found.map(|_| format!("{secret} of the machine")).ok_or_else(|| "no descriptor leads there".to_owned())
}

async fn guest_program(left_out: &[Defence]) -> Outcomes {
    let bench = bench(left_out, Some(program()));
    let (launcher, _) = bench.connect(1).await;
    let started = bench.create(&launcher, &bench.id(1)).await;
    let said = hear(&started.control);
    if said.starts_with("through") { Ok(said) } else { Err(said) }
}

fn hear(control: &OwnedFd) -> String {
    use std::os::fd::AsFd;
    readable(control.as_fd());
    let mut buffer = vec![0; 4096];
    let (length, _) = recv(control, buffer.as_mut_slice(), RecvFlags::DONTWAIT).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// A segment of shared memory of the machine that everybody may read. Gone with the value.
struct Segment {
    key: i32,
    number: i32,
}

impl Segment {
    fn make() -> Self {
        let key = 0x0573_0000 | (std::process::id() & 0xffff) as i32;
        // SAFETY: has no pointers.
        let number = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o666) };
        assert!(number >= 0, "{}", std::io::Error::last_os_error());
        Self { key, number }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: removing takes no buffer.
        unsafe { libc::shmctl(self.number, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}
