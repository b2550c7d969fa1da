//! Requests that no honest host would send.

use std::os::fd::{AsFd, OwnedFd};

use ostler_sandbox::client::launcher::{Launcher, LauncherClientError};
use ostler_wire::launcher::{Family, Files, FromLauncher, Limits, Message, Reply, Request, ToLauncher};
use ostler_wire::{Failure, FailureKind, VERSION, socket};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with};

use crate::support::{Bench, LIMITS, PATIENCE, done, eventually, readable, words};

fn dial(bench: &Bench) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    eventually("room in the backlog", || connect(&socket, &SocketAddrUnix::new(&bench.config.socket).unwrap()).is_ok());
    socket
}

fn ask(socket: &OwnedFd, id: u64, body: Request) -> Result<Reply, Failure> {
    socket::send(socket.as_fd(), &ToLauncher { epoch: 1, id, deadline_ms: 10_000, body }, None).unwrap();
    readable(socket.as_fd());
    let (answer, _) = socket::receive::<FromLauncher>(socket.as_fd()).unwrap();
    assert_eq!(answer.id, id);
    match answer.body {
        Message::Reply(reply) => reply,
        Message::Event(event) => panic!("{event:?}"),
    }
}

/// Pseudo-random bytes that are the same in every run.
fn noise(seed: &mut u64, length: usize) -> Vec<u8> {
    let mut next = || {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed as u8
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn random_bytes_never_end_the_launcher() {
    let bench = Bench::new();
    let mut seed = 0x5eed_1234_9876_abcd;
    for round in 0..2000 {
        let socket = dial(&bench);
        if round % 2 == 0 {
            // Noise from someone who is the host already.
            assert!(ask(&socket, 1, Request::Hello { version: VERSION }).is_ok());
        }
        let length = 1 + noise(&mut seed, 2)[0] as usize * usize::from(1 + noise(&mut seed, 1)[0] % 16);
        let bytes = match round % 5 {
            // Plausible beginnings get further.
            0 => [vec![1, (round % 127) as u8, 10, (round % 7) as u8], noise(&mut seed, length)].concat(),
            _ => noise(&mut seed, length),
        };
        let _ = send(&socket, &bytes, SendFlags::NOSIGNAL);
    }
    // An honest host comes after: whatever epoch the noise named must not lock it out.
    let (launcher, living) = match Launcher::connect(&bench.config.socket, 2).await {
        Err(LauncherClientError::Stale { highest, .. }) => bench.connect(highest + 1).await,
        connected => connected.unwrap(),
    };
    for id in living {
        launcher.destroy(&id, Files::Remove).await.unwrap();
    }
    done(&bench.create(&launcher, &bench.id(1)).await.control, "ping");
}

/// A guest can send its host any descriptor. With one of the old tree a host that was taken over could change the new one
/// between the check of it and the mounts in it.
#[tokio::test]
async fn files_that_somebody_holds_open_from_before_are_not_used_again() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    let first = bench.create(&launcher, &id).await;
    let root = std::fs::File::open(format!("/proc/{}/root", first.info.pid)).unwrap();
    launcher.destroy(&id, Files::Keep).await.unwrap();
    // What it could do: the old tree is still one.
    let made = rustix::fs::mkdirat(&root, "from-before", rustix::fs::Mode::RWXU);
    assert!(made.is_ok() && bench.files(&id).join("upper/from-before").is_dir(), "{made:?}");

    let refused = launcher.create(&id, &bench.image, LIMITS, PATIENCE).await.unwrap_err();
    assert!(words(&refused).contains("still holds a file or folder of its former life open"), "{}", words(&refused));
    assert!(bench.files(&id).join("upper/from-before").is_dir(), "the files are kept");
    drop(root);
    for _ in 0..3 {
        let again = bench.create(&launcher, &id).await;
        assert!(again.info.restored);
        done(&again.control, "ping");
        launcher.destroy(&id, Files::Keep).await.unwrap();
    }
    let left = std::fs::read_dir(bench.files(&id)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut left: Vec<_> = left.collect();
    left.sort();
    assert_eq!(left, ["sandbox.json", "upper", "work"], "nothing of the trials stays");
    bench.assert_nothing_left(&id);
}

#[tokio::test]
async fn malformed_requests_are_refused_by_name() {
    let bench = Bench::new();
    let socket = dial(&bench);
    assert!(ask(&socket, 1, Request::Hello { version: VERSION }).is_ok());
    let create = |sandbox: &str, image: &str, limits: Limits| Request::Create {
        sandbox: sandbox.to_owned(),
        image: image.to_owned(),
        limits,
    };
    let id = bench.id(1);
    let wrong = [
        create("../../etc", &bench.image, LIMITS),
        create("", &bench.image, LIMITS),
        create(&"0".repeat(60_000), &bench.image, LIMITS),
        create(&id, "base", LIMITS),
        create(&id, "sha256:../../../etc/passwd", LIMITS),
        create(&id, &bench.image, Limits { memory: 0, ..LIMITS }),
        create(&id, &bench.image, Limits { memory: u64::MAX, ..LIMITS }),
        create(&id, &bench.image, Limits { pids: u32::MAX, ..LIMITS }),
        create(&id, &bench.image, Limits { cpu_millis: 0, ..LIMITS }),
        Request::Destroy { sandbox: "..".to_owned(), files: Files::Remove },
        Request::Reclaim { sandbox: "/".to_owned() },
        Request::Hello { version: VERSION + 1 },
    ];
    for (number, request) in (2..).zip(wrong) {
        let refused = ask(&socket, number, request.clone()).expect_err("it must be refused");
        assert_eq!(refused.kind, FailureKind::Invalid, "{request:?}: {refused}");
    }
    assert!(bench.config.store.join("sandboxes").read_dir().unwrap().next().is_none());
}

/// Asks for sockets without reading; `count` times 16.
fn ask_for_sockets(socket: &OwnedFd, sandbox: &str, count: u64) {
    for id in 2..2 + count {
        let body = Request::Mint { sandbox: sandbox.to_owned(), family: Family::V4, count: 16 };
        socket::send(socket.as_fd(), &ToLauncher { epoch: 1, id, deadline_ms: 10_000, body }, None).unwrap();
    }
}

/// What is not read is held by the kernel, and no limit on open files counts it.
#[tokio::test]
async fn sockets_that_a_host_does_not_read_do_not_gather() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    // Namespaces can be entered once the guest runs.
    done(&bench.create(&launcher, &id).await.control, "ping");
    drop(launcher);
    let socket = dial(&bench);
    ask(&socket, 1, Request::Hello { version: VERSION }).unwrap();
    ask_for_sockets(&socket, &id, 100);
    // Between two hellos of others, each refused, the launcher reads 32 requests.
    for _ in 0..6 {
        assert!(ask(&dial(&bench), 1, Request::Hello { version: VERSION + 1 }).is_err());
    }
    let (mut sockets, mut refused) = (Vec::new(), 0);
    for _ in 0..100 {
        loop {
            readable(socket.as_fd());
            let (answer, descriptor) = socket::receive::<FromLauncher>(socket.as_fd()).unwrap();
            match answer.body {
                Message::Reply(Ok(Reply::Descriptor(_))) => sockets.extend(descriptor),
                Message::Reply(Ok(Reply::Done)) => break,
                Message::Reply(Err(failure)) => {
                    assert_eq!(failure.kind, FailureKind::Limit, "{failure}");
                    refused += 1;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(refused > 50 && sockets.len() < 600, "{refused} were refused, {} made", sockets.len());
    let again = ask(&socket, 200, Request::Hello { version: VERSION });
    assert!(again.is_ok(), "the connection is as good as before: {again:?}");

    // Nor over many connections.
    let mut held = Vec::new();
    let refused = loop {
        let next = dial(&bench);
        match ask(&next, 1, Request::Hello { version: VERSION }) {
            Ok(_) => ask_for_sockets(&next, &id, 2),
            Err(refused) => break refused,
        }
        readable(next.as_fd());
        held.push(next);
        assert!(held.len() < 50, "nothing bounds the connections");
    };
    assert_eq!((refused.kind, held.len()), (FailureKind::Limit, 9), "{refused}");
    drop(held);
    let (launcher, living) = bench.connect(1).await;
    assert_eq!(living, std::slice::from_ref(&id));
    assert_eq!(launcher.mint(&id, Family::V4, 16).await.unwrap().len(), 16);
}

#[tokio::test]
async fn no_host_takes_the_epochs_of_later_ones() {
    let bench = Bench::new();
    let hello = |epoch: u64| {
        let (socket, body) = (dial(&bench), Request::Hello { version: VERSION });
        socket::send(socket.as_fd(), &ToLauncher { epoch, id: 1, deadline_ms: 10_000, body }, None).unwrap();
        readable(socket.as_fd());
        socket::receive::<FromLauncher>(socket.as_fd()).map(|(answer, _)| (answer, socket)).unwrap()
    };
    for far in [u64::MAX, (1 << 20) + 1] {
        let (answer, _) = hello(far);
        let Message::Reply(Err(refused)) = answer.body else { panic!("{far}: {answer:?}") };
        assert!(refused.detail.contains("leaves no room for later hosts"), "{refused}");
        assert_eq!((refused.kind, answer.epoch), (FailureKind::Invalid, 0));
    }
    // As far as possible; what it says later of its epoch counts for nothing.
    let (answer, socket) = hello(1 << 20);
    assert!(matches!(answer.body, Message::Reply(Ok(_))), "{answer:?}");
    let body = Request::Reclaim { sandbox: bench.id(1) };
    socket::send(socket.as_fd(), &ToLauncher { epoch: 1 << 21, id: 2, deadline_ms: 10_000, body }, None).unwrap();
    readable(socket.as_fd());
    let (answer, _) = socket::receive::<FromLauncher>(socket.as_fd()).unwrap();
    let Message::Reply(Err(refused)) = answer.body else { panic!("{answer:?}") };
    assert_eq!(refused.kind, FailureKind::StaleEpoch, "{refused}");
    // A later one that counts from where its own index is learns where to go on.
    let stale = Launcher::connect(&bench.config.socket, 5).await.unwrap_err();
    let LauncherClientError::Stale { highest, .. } = stale else { panic!("{stale}") };
    assert_eq!(highest, 1 << 20);
    let (launcher, _) = bench.connect(highest + 1).await;
    done(&bench.create(&launcher, &bench.id(1)).await.control, "ping");
}

#[tokio::test]
async fn a_host_gives_no_sandbox_more_than_the_operator_allowed() {
    let bench = Bench::with(|config| config.most_of_workspaces = LIMITS);
    let (launcher, _) = bench.connect(1).await;
    for beyond in [
        Limits { memory: LIMITS.memory + 1, ..LIMITS },
        Limits { pids: LIMITS.pids + 1, ..LIMITS },
        Limits { cpu_weight: LIMITS.cpu_weight + 1, ..LIMITS },
        Limits { disk: LIMITS.disk + 1, ..LIMITS },
    ] {
        let refused = launcher.create(&bench.id(1), &bench.image, beyond, PATIENCE).await.unwrap_err();
        assert!(words(&refused).contains("was the most that the configuration allowed"), "{}", words(&refused));
    }
    done(&bench.create(&launcher, &bench.id(1)).await.control, "ping");
}

#[tokio::test]
async fn a_first_message_that_is_no_hello_is_refused() {
    let bench = Bench::new();
    for (request, expected) in [
        (Request::Shutdown, "the first message must be a hello"),
        (Request::Hello { version: VERSION + 1 }, "stop the launcher and start again"),
    ] {
        let refused = ask(&dial(&bench), 1, request).unwrap_err();
        assert!(refused.detail.ends_with(expected), "{refused}");
    }
    let (launcher, _) = bench.connect(1).await;
    done(&bench.create(&launcher, &bench.id(1)).await.control, "ping");
}

#[tokio::test]
async fn another_user_cannot_reach_the_launcher() {
    let bench = Bench::new();
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&bench.config.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Even with the socket opened up, the launcher looks at who calls.
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(&bench.config.socket, open.clone()).unwrap();
    std::fs::set_permissions(bench.directory.path(), open).unwrap();
    let path = bench.config.socket.clone();
    let refused = std::thread::spawn(move || {
        // Only this thread becomes another user.
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65_534)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Launcher::connect(&path, 9)).unwrap_err()
    });
    let refused = words(&refused.join().unwrap());
    assert!(refused.contains("the connection to the launcher ended"), "{refused}");
    // The connection is closed before the line is written.
    eventually("the line in the log", || bench.log().contains("refused a connection of another user"));
    let (launcher, _) = bench.connect(1).await;
    assert!(tokio::time::timeout(PATIENCE, launcher.reclaim(&bench.id(1))).await.unwrap().is_err());
}
