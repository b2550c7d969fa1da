//! Against a guest that lies, says nothing, or sends what it should not: the test holds its end of the socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ostler_sandbox::client::guest::{Deadlines, Guest, GuestError, LinkLost};
use ostler_wire::guest::{
    Call, Entry, EntryKind, Event, Exec, Exit, ExitCause, FromGuest, Listed, MAX_LABEL, MAX_PORTS, Message, Overflow,
    Port, Reply, Request, Stdio, ToGuest,
};
use ostler_wire::{VERSION, socket};
use rustix::event::PollFlags;
use rustix::fs::{CWD, FileType, MemfdFlags, Mode, OFlags, memfd_create, mknodat, openat};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

use crate::support::{PATIENCE, wait_for};

/// The other end of the link, played by the test on a blocking thread.
struct Liar {
    socket: OwnedFd,
}

impl Liar {
    fn request(&self) -> ToGuest {
        assert!(wait_for(self.socket.as_fd(), PollFlags::IN, PATIENCE), "no request came");
        socket::receive::<ToGuest>(self.socket.as_fd()).unwrap().0
    }

    fn say(&self, epoch: u64, id: u64, body: Message, descriptor: Option<BorrowedFd<'_>>) {
        socket::send(self.socket.as_fd(), &FromGuest { epoch, id, body }, descriptor).unwrap();
    }

    fn reply(&self, id: u64, reply: Reply, descriptor: Option<BorrowedFd<'_>>) {
        self.say(1, id, Message::Reply(Ok(reply)), descriptor);
    }
}

fn deadlines() -> Deadlines {
    Deadlines { hello: PATIENCE, answer: PATIENCE, file: PATIENCE }
}

/// A connected client and its liar.
async fn start() -> (Guest, Liar) {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let liar = Liar { socket: theirs };
    let greeting = tokio::task::spawn_blocking(move || {
        let hello = liar.request();
        assert_eq!(hello.body, Request::Hello { version: VERSION });
        // Left over from an older host, with a descriptor at that.
        let leftover = Message::Reply(Ok(Reply::Opened { size: 1, mode: 1 }));
        liar.say(0, 9, leftover, Some(liar.socket.as_fd()));
        liar.reply(hello.id, Reply::Welcome { version: VERSION, calls: 0 }, None);
        liar
    });
    let guest = Guest::connect(ours, 1, deadlines()).await.unwrap();
    (guest, greeting.await.unwrap())
}

/// Asks for a status while the liar does `lie`; gives how that ended.
async fn status(lie: impl FnOnce(&Liar, u64) + Send + 'static) -> Result<Call, GuestError> {
    let (guest, liar) = start().await;
    let lying = tokio::task::spawn_blocking(move || {
        let request = liar.request();
        lie(&liar, request.id);
        liar
    });
    let answer = guest.status("a").await;
    lying.await.unwrap();
    answer
}

fn row(call: &str) -> Reply {
    Reply::Call(Call { call: call.into(), output: 0, first: 0, exit: None })
}

fn is_violation<T: std::fmt::Debug>(answer: Result<T, GuestError>) {
    assert!(matches!(answer, Err(GuestError::Link(LinkLost::Violation(_)))), "{answer:?}");
}

#[tokio::test]
async fn an_answer_that_does_not_fit_its_request_ends_the_link() {
    assert!(status(|liar, id| liar.reply(id, row("a"), None)).await.is_ok());
    is_violation(status(|liar, id| liar.reply(id, Reply::Done, None)).await);
    is_violation(status(|liar, id| liar.reply(id, row("b"), None)).await);
    is_violation(status(|liar, id| liar.reply(id + 1, row("a"), None)).await);
    is_violation(status(|liar, id| liar.reply(id, row("a"), Some(liar.socket.as_fd()))).await);
    is_violation(status(|liar, _| liar.reply(0, row("a"), None)).await);
}

#[tokio::test]
async fn a_socket_that_takes_long_to_close_ends_the_link_and_holds_nobody_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut slow = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (_peer, _) = listener.accept().unwrap();
    slow.set_nonblocking(true).unwrap();
    while std::io::Write::write(&mut slow, &[0; 65_536]).is_ok() {}
    rustix::net::sockopt::set_socket_linger(&slow, Some(Duration::from_secs(20))).unwrap();
    let (guest, liar) = start().await;
    // An older answer, which nobody looks at. The one on its way is the last of the socket before the client, which shares this
    // thread, can take it: whoever closes the last one waits.
    liar.say(0, 2, Message::Reply(Ok(row("a"))), Some(slow.as_fd()));
    drop(slow);
    let began = std::time::Instant::now();
    is_violation(guest.status("a").await);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn bytes_that_are_no_message_end_the_link() {
    is_violation(
        status(|liar, _| {
            send(&liar.socket, &[0xff; 30], SendFlags::DONTWAIT).unwrap();
        })
        .await,
    );
}

#[tokio::test]
async fn an_event_without_an_end_or_with_a_number_ends_the_link() {
    let event = |exit| Message::Event(Event::Exited(Call { call: "a".into(), output: 0, first: 0, exit }));
    is_violation(status(move |liar, _| liar.say(1, 0, event(None), None)).await);
    let exit = Some(Exit { cause: ExitCause::Exited, status: 0, wall_us: 0 });
    is_violation(status(move |liar, id| liar.say(1, id, event(exit), None)).await);
    // The end of a call that this host does not follow is nobody's business.
    let unknown = move |liar: &Liar, id| {
        liar.say(1, 0, event(exit), None);
        liar.reply(id, row("a"), None);
    };
    assert!(status(unknown).await.is_ok());
}

#[tokio::test]
async fn an_older_answer_is_thrown_away_and_a_newer_one_ends_the_link() {
    let old = |liar: &Liar, id| {
        liar.say(0, id, Message::Reply(Ok(row("b"))), None);
        liar.reply(id, row("a"), None);
    };
    assert!(status(old).await.is_ok());
    let newer = status(|liar, id| liar.say(2, id, Message::Reply(Ok(row("a"))), None)).await;
    assert!(matches!(newer, Err(GuestError::Link(LinkLost::Superseded { epoch: 2 }))), "{newer:?}");
}

#[tokio::test]
async fn names_that_are_paths_and_longer_listings_than_asked_for_end_the_link() {
    let entry = |name: &str| Entry { name: name.into(), kind: EntryKind::File, size: 0 };
    let cases = [vec![entry("../a")], vec![entry("")], vec![entry("..")], vec![entry("a"), entry("b"), entry("c")]];
    for entries in cases {
        let (guest, liar) = start().await;
        let lying = tokio::task::spawn_blocking(move || {
            let request = liar.request();
            liar.reply(request.id, Reply::Listing { entries, truncated: false }, None);
            liar
        });
        is_violation(guest.list("", 2).await);
        lying.await.unwrap();
    }
}

#[tokio::test]
async fn listings_of_calls_and_ports_that_cannot_be_end_the_link() {
    let listed = |call: &str, label: &str, first| {
        let row = Call { call: call.into(), output: 5, first, exit: None };
        Reply::Calls { calls: vec![Listed { row, label: label.into(), age_ms: 0 }], truncated: false }
    };
    let long = "x".repeat(MAX_LABEL + 1);
    for reply in [listed("other", "", 0), listed("bg:1", &long, 0), listed("bg:1", "", 6), Reply::Done] {
        let (guest, liar) = start().await;
        let lying = tokio::task::spawn_blocking(move || {
            let request = liar.request();
            liar.reply(request.id, reply, None);
            liar
        });
        is_violation(guest.calls("bg:").await);
        lying.await.unwrap();
    }
    let (guest, liar) = start().await;
    let port = Port { port: 1, address: std::net::Ipv4Addr::LOCALHOST.into(), process: None };
    let lying = tokio::task::spawn_blocking(move || {
        let request = liar.request();
        liar.reply(request.id, Reply::Ports { ports: vec![port; MAX_PORTS + 1], truncated: false }, None);
        liar
    });
    is_violation(guest.ports().await);
    lying.await.unwrap();
}

/// Reads a file while the liar hands over `descriptor` with a made-up size and mode.
async fn read(descriptor: OwnedFd) -> Result<ostler_sandbox::client::guest::FileContent, GuestError> {
    let (guest, liar) = start().await;
    let lying = tokio::task::spawn_blocking(move || {
        let request = liar.request();
        liar.reply(request.id, Reply::Opened { size: u64::MAX, mode: u32::MAX }, Some(descriptor.as_fd()));
        liar
    });
    let answer = guest.read_file("a", 100).await;
    lying.await.unwrap();
    answer
}

#[tokio::test]
async fn only_regular_files_of_known_file_systems_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let open = |path: &std::path::Path, flags| openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
    for (what, descriptor) in [
        // Held open for both, it would block a reader for ever.
        ("a fifo", open(&fifo, OFlags::RDWR)),
        ("a directory", open(directory.path(), OFlags::RDONLY)),
        ("a device", open("/dev/zero".as_ref(), OFlags::RDONLY)),
        ("a file of procfs", open("/proc/self/status".as_ref(), OFlags::RDONLY)),
    ] {
        let answer = read(descriptor).await;
        assert!(matches!(answer, Err(GuestError::Unreadable { .. })), "{what}: {answer:?}");
    }
    // What cannot be read at all is an error, not an empty file.
    std::fs::write(directory.path().join("plain"), "content").unwrap();
    let answer = read(open(&directory.path().join("plain"), OFlags::PATH)).await;
    assert!(matches!(answer, Err(GuestError::Read { .. })), "{answer:?}");
    // Size and mode are the kernel's word, not the guest's.
    let file = memfd_create("file", MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&file, b"hello").unwrap();
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o640)).unwrap();
    let content = read(file).await.unwrap();
    assert_eq!((content.bytes.as_slice(), content.size, content.mode), (&b"hello"[..], 5, 0o640));
}

#[tokio::test]
async fn a_silent_guest_costs_its_deadline_and_the_link_goes_on() {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let short = Duration::from_millis(20);
    let brief = Deadlines { hello: short, ..deadlines() };
    let silent = Guest::connect(ours.try_clone().unwrap(), 1, brief).await.unwrap_err();
    assert!(matches!(silent, GuestError::Deadline { what: "say hello", .. }), "{silent:?}");

    let liar = Liar { socket: theirs };
    let first = liar.request();
    liar.reply(first.id, Reply::Welcome { version: VERSION, calls: 0 }, None);
    let guest = Guest::connect(ours, 1, Deadlines { answer: short, ..deadlines() }).await.unwrap();
    let late = guest.status("a").await.unwrap_err();
    assert!(matches!(late, GuestError::Deadline { .. }), "{late:?}");
    // The answer comes after nobody waits for it any more; the next request gets its own. (The second hello is still there.)
    let (second, asked) = (liar.request(), liar.request());
    assert!(matches!(second.body, Request::Hello { .. }));
    liar.reply(asked.id, row("a"), None);
    let answering = tokio::task::spawn_blocking(move || {
        let request = liar.request();
        liar.reply(request.id, Reply::Done, None);
        liar
    });
    guest.write_file("b", b"", 0o644).await.unwrap();
    answering.await.unwrap();
}

#[tokio::test]
async fn a_guest_that_is_gone_or_speaks_another_version_is_an_error() {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    drop(theirs);
    let gone = Guest::connect(ours, 1, deadlines()).await.unwrap_err();
    assert!(matches!(gone, GuestError::Link(LinkLost::Closed)), "{gone:?}");

    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let liar = Liar { socket: theirs };
    liar.reply(1, Reply::Welcome { version: VERSION + 1, calls: 0 }, None);
    is_violation(Guest::connect(ours, 1, deadlines()).await);
}

#[tokio::test]
async fn a_guest_that_floods_is_cut_off_and_another_one_does_not_notice() {
    let (flooded, flooder) = start().await;
    let (honest, other) = start().await;
    let flooding = std::thread::spawn(move || {
        let useless = FromGuest { epoch: 0, id: 7, body: Message::Reply(Ok(row("a"))) };
        let mut sent = 0_u64;
        loop {
            match socket::send(flooder.socket.as_fd(), &useless, None) {
                Ok(()) => sent += 1,
                Err(socket::SocketError::NotReady) => std::thread::yield_now(),
                Err(_) => return sent,
            }
        }
    });
    let answering = std::thread::spawn(move || {
        for _ in 0..500 {
            let request = other.request();
            other.reply(request.id, row("a"), None);
        }
        other
    });
    let began = std::time::Instant::now();
    for _ in 0..500 {
        honest.status("a").await.unwrap();
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    let refused = flooded.status("a").await.unwrap_err();
    let GuestError::Link(LinkLost::Violation(why)) = refused else { panic!("{refused:?}") };
    assert_eq!(why, "a flood of messages that nobody waits for");
    assert!(flooding.join().unwrap() > 4096);
    answering.join().unwrap();
}

#[tokio::test]
async fn a_guest_cannot_make_the_hosts_end_of_the_output_block() {
    let (guest, liar) = start().await;
    let lying = tokio::task::spawn_blocking(move || {
        assert!(wait_for(liar.socket.as_fd(), PollFlags::IN, PATIENCE));
        let (request, output) = socket::receive::<ToGuest>(liar.socket.as_fd()).unwrap();
        let output = output.unwrap();
        rustix::io::ioctl_fionbio(&output, true).unwrap();
        rustix::io::ioctl_fionbio(&output, false).unwrap();
        liar.reply(request.id, Reply::Started { pid: 7 }, None);
        (liar, output)
    });
    let exec = Exec {
        call: "a".into(),
        argv: vec!["true".into()],
        env: vec![],
        cwd: "/".into(),
        timeout_ms: 0,
        output_limit: 1,
        overflow: Overflow::End,
        stdio: Stdio::Merged,
        label: String::new(),
    };
    let running = guest.exec(exec).await.unwrap();
    let _held = lying.await.unwrap();
    // Only comes back where the socket does not block.
    assert_eq!(running.output.try_read(&mut [0; 4]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let flags = rustix::fs::fcntl_getfl(&running.output).unwrap();
    assert!(flags.contains(OFlags::NONBLOCK));
}
