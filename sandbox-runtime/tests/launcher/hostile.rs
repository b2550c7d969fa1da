//! Requests that no honest host would send.

use std::os::fd::{AsFd, OwnedFd};

use ostler_wire::launcher::{Files, FromLauncher, Limits, Message, Reply, Request, ToLauncher};
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
    let (launcher, living) = bench.connect(u64::MAX).await;
    for id in living {
        launcher.destroy(&id, Files::Remove).await.unwrap();
    }
    done(&bench.create(&launcher, &bench.id(1)).await.control, "ping");
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
        runtime.block_on(ostler_sandbox::client::launcher::Launcher::connect(&path, 9)).unwrap_err()
    });
    let refused = words(&refused.join().unwrap());
    assert!(refused.contains("the connection to the launcher ended"), "{refused}");
    // The connection is closed before the line is written.
    eventually("the line in the log", || bench.log().contains("refused a connection of another user"));
    let (launcher, _) = bench.connect(1).await;
    assert!(tokio::time::timeout(PATIENCE, launcher.reclaim(&bench.id(1))).await.unwrap().is_err());
}
