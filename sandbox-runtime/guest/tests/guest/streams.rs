//! Streams other than merged output: pipes in both directions, terminals, tails of output, and the listing of calls.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::host::{Host, all, line, shell};
use crate::support::{GuestProcess, PATIENCE, await_end};
use ostler_wire::FailureKind;
use ostler_wire::guest::{Call, Exec, ExitCause, Listed, MIN_TAIL, Overflow, Reply, Request, Stdio, Window};
use rustix::process::Pid;

const WINDOW: Window = Window { rows: 24, columns: 80 };

fn start() -> (GuestProcess, Host) {
    let guest = GuestProcess::start();
    let host = Host::connect(guest.control.as_ref().unwrap(), 1);
    (guest, host)
}

fn piped(call: &str, script: &str) -> Exec {
    Exec { stdio: Stdio::Piped, ..shell(call, script) }
}

fn tail(call: &str, limit: u64, script: &str) -> Exec {
    Exec { overflow: Overflow::DropHead, output_limit: limit, ..shell(call, script) }
}

fn terminal(call: &str, script: &str) -> Exec {
    Exec { stdio: Stdio::Terminal(WINDOW), ..tail(call, 64 * 1024, script) }
}

fn cause(call: &Call) -> ExitCause {
    call.exit.unwrap().cause
}

fn list(host: &mut Host, prefix: &str) -> Vec<Listed> {
    match host.ask(Request::Calls { prefix: prefix.into() }) {
        Ok(Reply::Calls { calls, truncated: false }) => calls,
        other => panic!("unexpected answer {other:?}"),
    }
}

/// Reads until the output holds `words`; gives what was read.
fn until(output: &mut UnixStream, words: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&text).contains(words) {
        assert_eq!(
            output.read(&mut byte).unwrap(),
            1,
            "the end came before {words:?}: {:?}",
            String::from_utf8_lossy(&text)
        );
        text.push(byte[0]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_piped_program_reads_what_the_host_writes_and_its_errors_are_kept_apart() {
    let (_guest, mut host) = start();
    let mut stream = host.exec(piped("a", "echo first >&2; tr a-z A-Z; echo last >&2; exit 3")).unwrap();
    // More than every buffer on the way, so that both directions must work at once.
    let sent: String = (0..60_000).map(|number| format!("line {number}\n")).collect();
    let mut writer = stream.try_clone().unwrap();
    let bytes = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(bytes.as_bytes()).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    writing.join().unwrap();
    assert!(text == sent.to_uppercase());
    let ended = host.exited("a");
    assert_eq!((ended.exit.unwrap().status, ended.output), (3, 11));
    assert_eq!(all(host.attach("a", 0).1), "first\nlast\n");
}

#[test]
fn a_piped_program_whose_host_is_gone_is_stopped_with_what_it_started() {
    let (guest, mut host) = start();
    let file = guest.workspace().join("pid");
    let script = format!("setsid sleep 1000 & echo $! > '{}'; echo ready; wait", file.display());
    let mut stream = host.exec(piped("a", &script)).unwrap();
    assert_eq!(line(&mut stream), "ready");
    drop(stream);
    assert_eq!(cause(&host.exited("a")), ExitCause::Stopped);
    await_end(Pid::from_raw(std::fs::read_to_string(file).unwrap().trim().parse().unwrap()).unwrap());
}

#[test]
fn the_end_of_a_piped_program_is_the_end_of_its_stream_whoever_still_has_it() {
    let (_guest, mut host) = start();
    let mut stream = host.exec(piped("a", "sleep 1000 & echo done")).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "done\n");
    assert_eq!(host.exited("a").exit.unwrap().status, 0);
    assert_eq!(host.ask(Request::Stop { call: "a".into(), grace_ms: 0 }), Ok(Reply::Done));
}

#[test]
fn the_errors_of_a_piped_program_are_bounded() {
    let (_guest, mut host) = start();
    let script = "yes 123456789 | head -c 100000 >&2; echo out";
    let exec = Exec { stdio: Stdio::Piped, ..tail("a", MIN_TAIL, script) };
    assert_eq!(all(host.exec(exec).unwrap()), "out\n");
    let ended = host.exited("a");
    assert_eq!((ended.output, ended.first), (100_000, 100_000 - MIN_TAIL));
    assert_eq!(all(host.attach("a", 0).1).len() as u64, MIN_TAIL);
}

#[test]
fn a_tail_goes_on_for_ever_and_says_what_is_lost() {
    let (_guest, mut host) = start();
    let output = host.exec(tail("a", MIN_TAIL, "yes 123456789 | head -c 300000; sleep 1000")).unwrap();
    // Nobody follows: nothing is held up.
    drop(output);
    let until = std::time::Instant::now() + PATIENCE;
    while host.status("a").output < 300_000 {
        assert!(std::time::Instant::now() < until, "the output stopped");
        std::thread::yield_now();
    }
    let row = host.status("a");
    assert_eq!((row.output, row.first, row.exit), (300_000, 300_000 - MIN_TAIL, None));
    let (row, mut output) = host.attach("a", 10);
    assert_eq!(row.first, 300_000 - MIN_TAIL);
    let mut bytes = vec![0; usize::try_from(MIN_TAIL).unwrap()];
    output.read_exact(&mut bytes).unwrap();
    let whole = "123456789\n".repeat(30_000);
    assert!(bytes == whole.as_bytes()[300_000 - bytes.len()..]);
}

#[test]
fn who_follows_a_tail_loses_nothing_however_slowly_it_reads() {
    let (_guest, mut host) = start();
    let mut output = host.exec(tail("a", MIN_TAIL, "seq 1 100000; exit 4")).unwrap();
    // The program is held up: its output is far larger than all buffers on the way.
    assert_eq!(all(host.shell("b", "echo others go on")), "others go on\n");
    assert_eq!(host.status("a").exit, None);
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    let expected: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert!(text == expected);
    assert_eq!(host.exited("a").exit.unwrap().status, 4);
}

#[test]
fn a_tail_outside_of_its_bounds_and_a_long_label_are_refused() {
    let (_guest, mut host) = start();
    for limit in [0, MIN_TAIL - 1, 1024 * 1024 + 1] {
        let failure = host.exec(tail("a", limit, "true")).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Limit, "{failure}");
        assert!(failure.detail.contains(&limit.to_string()), "{failure}");
    }
    let long = Exec { label: "x".repeat(257), ..shell("a", "true") };
    assert_eq!(host.exec(long).unwrap_err().kind, FailureKind::Invalid);
    let _living: Vec<_> =
        (0..32).map(|number| host.exec(tail(&format!("c{number}"), 1024 * 1024, "sleep 1000")).unwrap()).collect();
    let failure = host.exec(tail("a", MIN_TAIL, "true")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Limit, "{failure}");
}

#[test]
fn a_terminal_is_one_for_its_program() {
    let (_guest, mut host) = start();
    let script = "tty; stty size; [ $(ps -o sid= -p $$) = $$ ] && echo leader; test -t 0 && test -t 1 && test -t 2 && echo all; exec 3<>/dev/tty && echo controlling >&3; exit 5";
    let text = all(host.exec(terminal("a", script)).unwrap());
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{text}");
    assert_eq!(lines[1..], ["24 80", "leader", "all", "controlling", ""]);
    assert_eq!(host.exited("a").exit.unwrap().status, 5);
}

#[test]
fn what_is_typed_reaches_the_program_and_the_keys_of_the_terminal_work() {
    let (_guest, mut host) = start();
    let mut output = host
        .exec(terminal(
            "a",
            "echo ready; read -r name; echo hello $name; trap 'echo int' INT; sh -c 'echo waiting; exec sleep 1000'; echo after; cat; echo end",
        ))
        .unwrap();
    until(&mut output, "ready\r\n");
    output.write_all(b"worl\x7fld\r").unwrap();
    until(&mut output, "hello world\r\nwaiting\r\n");
    output.write_all(b"\x03").unwrap();
    until(&mut output, "int\r\nafter\r\n");
    output.write_all(b"typed\n\x04").unwrap();
    assert!(until(&mut output, "end\r\n").contains("typed\r\ntyped\r\n"));
    assert_eq!(host.exited("a").exit.unwrap().status, 0);
}

#[test]
fn a_terminal_that_is_resized_tells_its_foreground() {
    let (_guest, mut host) = start();
    let script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done";
    let mut output = host.exec(terminal("a", script)).unwrap();
    until(&mut output, "ready\r\n");
    let resize = |call: &str| Request::Resize { call: call.into(), window: Window { rows: 50, columns: 132 } };
    assert_eq!(host.ask(resize("a")), Ok(Reply::Done));
    assert_eq!(all(output), "50 132\r\n");
    host.exited("a");
    let _other = host.shell("b", "sleep 1000");
    for call in ["a", "b"] {
        assert_eq!(host.ask(resize(call)).unwrap_err().kind, FailureKind::Invalid);
    }
    assert_eq!(host.ask(resize("c")).unwrap_err().kind, FailureKind::NotFound);
}

#[test]
fn a_signal_to_a_terminal_reaches_its_foreground() {
    let (_guest, mut host) = start();
    // An interactive shell gives each job a group of its own.
    let exec = Exec { argv: vec!["/bin/bash".into(), "--norc".into(), "-i".into()], ..terminal("a", "") };
    let mut output = host.exec(exec).unwrap();
    output.write_all(b"trap '' USR1; sh -c 'echo rea''dy; sleep 1000'; echo status $?\n").unwrap();
    until(&mut output, "ready\r\n");
    assert_eq!(host.ask(Request::Signal { call: "a".into(), signal: 9 }), Ok(Reply::Done));
    until(&mut output, "status 137\r\n");
    // Stopping ends a shell that does not mind SIGTERM within its grace.
    assert_eq!(host.ask(Request::Stop { call: "a".into(), grace_ms: 20_000 }), Ok(Reply::Done));
    all(output);
    assert_eq!(cause(&host.exited("a")), ExitCause::Stopped);
}

#[test]
fn a_terminal_survives_who_typed_into_it_and_shows_what_it_showed() {
    let (guest, mut host) = start();
    let mut output = host.exec(terminal("a", "echo before; read -r x; echo got $x; read -r x; echo got $x")).unwrap();
    until(&mut output, "before\r\n");
    drop(output);
    let mut second = Host::connect(guest.control.as_ref().unwrap(), 2);
    let (row, mut output) = second.attach("a", 0);
    assert_eq!((row.exit, row.first), (None, 0));
    until(&mut output, "before\r\n");
    output.write_all(b"one\n").unwrap();
    until(&mut output, "got one\r\n");
    let (_, mut output) = second.attach("a", 0);
    until(&mut output, "got one\r\n");
    output.write_all(b"two\n").unwrap();
    until(&mut output, "got two\r\n");
    assert_eq!(second.exited("a").exit.unwrap().status, 0);
}

#[test]
fn a_program_that_never_reads_its_terminal_holds_up_only_who_types() {
    let (_guest, mut host) = start();
    let mut output = host.exec(terminal("a", "stty raw -echo; echo ready; exec sleep 1000")).unwrap();
    until(&mut output, "ready");
    output.set_nonblocking(true).unwrap();
    let mut written = 0;
    while let Ok(count) = output.write(&[b'x'; 4096]) {
        written += count;
        assert!(written < 64 * 1024 * 1024, "typing is without bounds");
    }
    assert_eq!(all(host.shell("b", "echo others go on")), "others go on\n");
    assert_eq!(host.ask(Request::Stop { call: "a".into(), grace_ms: 0 }), Ok(Reply::Done));
    assert_eq!(cause(&host.exited("a")), ExitCause::Stopped);
}

#[test]
fn whatever_a_program_does_to_its_terminal_the_guest_goes_on() {
    let (_guest, mut host) = start();
    // Flow control, blocking and not, exclusive use.
    let script = "stty -echo raw; stty ixon -ixany; printf '\\023'; perl -e 'use Fcntl; fcntl(STDIN, F_SETFL, 0); fcntl(STDOUT, F_SETFL, O_NONBLOCK); ioctl(STDIN, 0x540C, 0);'; exec sleep 1000";
    let mut output = host.exec(terminal("a", script)).unwrap();
    output.write_all(b"abc\x13def").unwrap();
    for number in 0..20 {
        assert_eq!(all(host.shell(&format!("b{number}"), "echo fine")), "fine\n");
    }
    assert_eq!(host.ask(Request::Stop { call: "a".into(), grace_ms: 100 }), Ok(Reply::Done));
    assert_eq!(cause(&host.exited("a")), ExitCause::Stopped);
}

#[test]
fn a_terminal_that_nobody_has_open_any_more_is_hung_up() {
    let (_guest, mut host) = start();
    let output = host.exec(terminal("a", "echo bye; exec </dev/null >/dev/null 2>&1; exec sleep 1000")).unwrap();
    assert_eq!(all(output), "bye\r\n");
    let exit = host.exited("a").exit.unwrap();
    assert_eq!((exit.cause, exit.status), (ExitCause::Exited, 128 + 1));
}

#[test]
fn pieces_of_the_output_are_read_without_following_it() {
    let (_guest, mut host) = start();
    let mut output = host.exec(tail("a", MIN_TAIL, "seq 1 2000; read -r x")).unwrap();
    let mut bytes = vec![0; 8893];
    output.read_exact(&mut bytes).unwrap();
    let row = host.status("a");
    let mut read = |offset, max| match host.ask(Request::Read { call: "a".into(), offset, max }) {
        Ok(Reply::Output { row: found, offset, bytes }) if found == row => Ok((offset, bytes)),
        Ok(other) => panic!("unexpected answer {other:?}"),
        Err(failure) => Err(failure.kind),
    };
    let (first, end) = (row.first, row.output);
    assert_eq!((first, end), (8893 - MIN_TAIL, 8893));
    let from = |offset: u64| bytes[usize::try_from(offset).unwrap()..].to_vec();
    assert_eq!(read(0, u32::MAX), Ok((first, from(first))));
    assert_eq!(read(8000, 5), Ok((8000, from(8000)[..5].to_vec())));
    assert_eq!(read(end, 10), Ok((end, Vec::new())));
    assert_eq!(read(end + 1, 10), Err(FailureKind::Invalid));
}

#[test]
fn calls_are_listed_by_the_beginning_of_their_names() {
    let (_guest, mut host) = start();
    let labelled = |call: &str, label: &str, script: &str| Exec { label: label.into(), ..shell(call, script) };
    let _first = host.exec(labelled("bg:1", "the server", "sleep 1000")).unwrap();
    let _second = host.exec(labelled("tty:1", "a shell", "sleep 1000")).unwrap();
    all(host.exec(labelled("bg:2", "the build", "echo built; exit 1")).unwrap());
    let ended = host.exited("bg:2");
    let names =
        |listed: &[Listed]| listed.iter().map(|each| (each.row.call.clone(), each.label.clone())).collect::<Vec<_>>();
    let listed = list(&mut host, "bg:");
    assert_eq!(names(&listed), [("bg:1".into(), "the server".into()), ("bg:2".into(), "the build".into())]);
    assert_eq!(listed[1].row, ended);
    assert_eq!(list(&mut host, "").len(), 3);
    assert_eq!(list(&mut host, "nothing"), []);
    assert_eq!(host.ask(Request::Forget { call: "bg:2".into() }), Ok(Reply::Done));
    assert_eq!(list(&mut host, "bg:").len(), 1);
}

#[test]
fn a_listing_that_does_not_fit_one_message_says_so() {
    let (_guest, mut host) = start();
    for number in 0..256 {
        let exec =
            Exec { argv: vec!["/bin/true".into()], label: "x".repeat(256), ..shell(&format!("{number:090}"), "") };
        all(host.exec(exec).unwrap());
    }
    match host.ask(Request::Calls { prefix: String::new() }) {
        Ok(Reply::Calls { calls, truncated: true }) => assert!(calls.len() > 100, "{}", calls.len()),
        other => panic!("unexpected answer {other:?}"),
    }
}

#[test]
fn a_port_is_listed_while_something_listens_with_whose_it_is() {
    let (_guest, mut host) = start();
    let script = "import socket,sys; s=socket.socket(socket.AF_INET6); s.bind(('::1',0)); s.listen(); print(s.getsockname()[1], flush=True); sys.stdin.read()";
    let exec = Exec { argv: vec!["/usr/bin/python3".into(), "-c".into(), script.into()], ..piped("a", "") };
    let mut stream = host.exec(exec).unwrap();
    let port: u16 = line(&mut stream).parse().unwrap();
    let listed = |host: &mut Host| match host.ask(Request::Ports) {
        Ok(Reply::Ports { ports, truncated: false }) => ports.into_iter().find(|each| each.port == port),
        other => panic!("unexpected answer {other:?}"),
    };
    let found = listed(&mut host).unwrap();
    assert_eq!(found.address, std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST));
    assert_eq!(found.process.unwrap().1, "python3");
    stream.shutdown(Shutdown::Write).unwrap();
    host.exited("a");
    assert_eq!(listed(&mut host), None);
}

#[test]
fn every_kind_of_streams_needs_a_socket() {
    let (_guest, mut host) = start();
    let null = std::fs::File::open("/dev/null").unwrap();
    for exec in [piped("a", "true"), terminal("a", "true"), tail("a", MIN_TAIL, "true")] {
        for descriptor in [None, Some(null.as_fd())] {
            let answer = host.ask_with(Request::Exec(exec.clone()), descriptor).0;
            assert_eq!(answer.unwrap_err().kind, FailureKind::Invalid);
        }
    }
}
