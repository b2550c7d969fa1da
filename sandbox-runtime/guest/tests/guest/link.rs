//! The control link, seen through the protocol: hosts that come, go and come again, and messages that are none.

use std::io::Write;
use std::os::fd::AsFd;

use crate::host::{Host, all, line, shell};
use crate::support::{GuestProcess, PATIENCE, await_end, lives, wait_for};
use ostler_wire::guest::{Event, ExitCause, FromGuest, Message, Reply, Request};
use ostler_wire::{FailureKind, VERSION};
use rustix::event::PollFlags;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::net::{SendFlags, send};
use rustix::process::Pid;

fn pid(text: &str) -> Pid {
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

/// A script that says `one`, waits for a line in the fifo, says `two` and ends with 9.
fn two_steps(guest: &GuestProcess) -> (std::path::PathBuf, String) {
    let fifo = guest.workspace().join("go");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let script = format!("echo one; read -r go < '{}'; echo two; exit 9", fifo.display());
    (fifo, script)
}

fn go(fifo: &std::path::Path) {
    std::fs::OpenOptions::new().write(true).open(fifo).unwrap().write_all(b"go\n").unwrap();
}

#[test]
fn a_tool_outlives_its_host_and_the_next_host_gets_all_of_its_output() {
    let guest = GuestProcess::start();
    let control = guest.control.as_ref().unwrap();
    let (fifo, script) = two_steps(&guest);
    let mut first = Host::connect(control, 1);
    let mut output = first.shell("a", &script);
    assert_eq!(line(&mut output), "one");
    drop((first, output));

    let mut second = Host::connect(control, 2);
    let (row, replay) = second.attach("a", 0);
    assert_eq!((row.output, row.exit), (4, None));
    go(&fifo);
    assert_eq!(all(replay), "one\ntwo\n");
    let ended = second.exited("a");
    let exit = ended.exit.unwrap();
    assert_eq!((exit.cause, exit.status, ended.output), (ExitCause::Exited, 9, 8));
    // Once more, from the middle: the row tells the end, so no event follows.
    let (row, replay) = second.attach("a", 4);
    assert_eq!(row, ended);
    assert_eq!(all(replay), "two\n");
    assert_eq!(second.ask(Request::Attach { call: "a".into(), offset: 8 }).unwrap_err().kind, FailureKind::Invalid);
    assert_eq!(second.ask(Request::Forget { call: "a".into() }), Ok(Reply::Done));
}

#[test]
fn a_tool_that_ends_while_no_host_is_there_is_known_to_the_next_one() {
    let guest = GuestProcess::start();
    let control = guest.control.as_ref().unwrap();
    let (fifo, script) = two_steps(&guest);
    let mut first = Host::connect(control, 1);
    let mut output = first.shell("a", &format!("echo $$; {script}"));
    let program = pid(&line(&mut output));
    drop((first, output));
    go(&fifo);
    await_end(program);

    let mut second = Host::connect(control, 5);
    let (row, replay) = second.attach("a", 0);
    assert_eq!(all(replay), format!("{}\none\ntwo\n", program.as_raw_pid()));
    // The event comes only if the row did not tell the end yet.
    let exit = row.exit.unwrap_or_else(|| second.exited("a").exit.unwrap());
    assert_eq!(exit.status, 9);
}

#[test]
fn an_older_host_is_refused_and_changes_nothing() {
    let guest = GuestProcess::start();
    let control = guest.control.as_ref().unwrap();
    let mut old = Host::connect(control, 3);
    let mut output = old.shell("a", "echo $$; sleep 1000");
    let program = pid(&line(&mut output));
    let mut new = Host::connect(control, 4);
    for request in [
        Request::Stop { call: "a".into(), grace_ms: 0 },
        Request::Hello { version: VERSION },
        Request::Exec(shell("b", "true")),
        Request::Status { call: "a".into() },
    ] {
        let failure = old.ask(request).unwrap_err();
        assert_eq!(failure.kind, FailureKind::StaleEpoch, "{failure}");
    }
    assert!(lives(program));
    assert_eq!(new.status("a").exit, None);
    // The socket that the older host gave is closed.
    assert_eq!(all(output), "");
}

#[test]
fn a_host_must_say_hello_first_in_the_right_version() {
    let guest = GuestProcess::start();
    let control = guest.control.as_ref().unwrap();
    let mut host = Host::silent(control, 7);
    assert_eq!(host.ask(Request::Status { call: "a".into() }).unwrap_err().op, "hello");
    let failure = host.ask(Request::Hello { version: VERSION + 1 }).unwrap_err();
    assert_eq!((failure.kind, failure.op.as_str()), (FailureKind::Invalid, "hello"));
    // A host that was refused has not become the current one.
    Host::connect(control, 6);
    assert_eq!(host.ask(Request::Hello { version: VERSION }), Ok(Reply::Welcome { version: VERSION, calls: 0 }));
    let mut next = Host::silent(control, 8);
    assert_eq!(next.ask(Request::Status { call: "a".into() }).unwrap_err().op, "hello");
}

#[test]
fn messages_of_an_older_host_that_are_still_in_the_socket_are_marked_as_its() {
    let guest = GuestProcess::start();
    let control = guest.control.as_ref().unwrap();
    let mut old = Host::connect(control, 1);
    let output = old.shell("a", "echo one");
    assert_eq!(all(output), "one\n");
    // The event for the old host lies unread in the socket.
    assert!(wait_for(control.as_fd(), PollFlags::IN, PATIENCE));
    drop(old);
    let mut new = Host::silent(control, 2);
    let id = new.send(Request::Hello { version: VERSION }, None);
    let (message, _) = ostler_wire::socket::receive::<FromGuest>(control.as_fd()).unwrap();
    assert_eq!(message.epoch, 1);
    assert!(matches!(message.body, Message::Event(Event::Exited(_))), "{message:?}");
    assert_eq!(new.answer(id).0, Ok(Reply::Welcome { version: VERSION, calls: 1 }));
}

#[test]
fn bytes_that_are_no_message_close_the_link_and_end_everything() {
    for bytes in [&[0xff; 40][..], b"\x01\x01\x63", &[1, 1, 0, 1, 9]] {
        let guest = GuestProcess::start();
        let control = guest.control.as_ref().unwrap();
        let mut host = Host::connect(control, 1);
        let mut output = host.shell("a", "setsid sleep 1000 & echo $!; wait");
        let program = pid(&line(&mut output));
        send(control, bytes, SendFlags::DONTWAIT).unwrap();
        assert_eq!(guest.ended(), Some(1), "{bytes:?}");
        assert!(!lives(program));
    }
}

#[test]
fn the_end_of_the_link_ends_everything() {
    let mut guest = GuestProcess::start();
    let mut host = Host::connect(guest.control.as_ref().unwrap(), 1);
    let mut output = host.shell("a", "trap '' TERM; setsid sh -c 'echo $$; sleep 1000; :' & echo $!; wait");
    let (first, second) = (pid(&line(&mut output)), pid(&line(&mut output)));
    drop(host);
    assert_eq!(guest.close(), Some(0));
    assert!(!lives(first) && !lives(second));
}

#[test]
fn a_host_that_reads_no_answers_is_not_served_for_ever_and_gets_them_all_in_the_end() {
    let guest = GuestProcess::start();
    let control = guest.control.as_ref().unwrap();
    let mut host = Host::connect(control, 1);
    let mut sent = Vec::new();
    // Until neither the socket nor the guest takes any more.
    while wait_for(control.as_fd(), PollFlags::OUT, std::time::Duration::from_millis(200)) && sent.len() < 5000 {
        sent.push(host.send(Request::Status { call: "nobody".into() }, None));
    }
    assert!(sent.len() < 5000, "the guest took every request although nobody read the answers");
    for id in sent {
        assert_eq!(host.answer(id).0.unwrap_err().kind, FailureKind::NotFound);
    }
}
