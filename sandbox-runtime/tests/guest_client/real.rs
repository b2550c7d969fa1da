//! Against a real guest: its own loop in a process of its own.

use std::os::fd::AsFd;
use std::time::Duration;

use ostler_sandbox::client::guest::{Deadlines, Guest, GuestError, LinkLost, Running};
use ostler_wire::guest::{
    Call, EntryKind, Exec, ExitCause, FromGuest, MAX_FILE, MIN_TAIL, Overflow, Request, Stdio, ToGuest, Window,
};
use ostler_wire::{FailureKind, VERSION, socket};
use rustix::event::PollFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{GuestProcess, PATIENCE, wait_for};

/// Connects the way a host does: over a duplicate, since the launcher keeps the socket.
async fn connect(process: &GuestProcess, epoch: u64) -> Guest {
    let control = process.control.as_ref().unwrap().try_clone().unwrap();
    Guest::connect(control, epoch, Deadlines::default()).await.unwrap()
}

fn shell(call: &str, script: &str) -> Exec {
    Exec {
        call: call.into(),
        argv: vec!["sh".into(), "-c".into(), script.into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: "/".into(),
        timeout_ms: 0,
        output_limit: 16 * 1024 * 1024,
        overflow: Overflow::End,
        stdio: Stdio::Merged,
        label: String::new(),
    }
}

async fn finish(mut running: Running) -> (String, Call) {
    let mut output = String::new();
    running.output.read_to_string(&mut output).await.unwrap();
    (output, running.exit().await.unwrap())
}

fn outcome(call: &Call) -> (ExitCause, i32) {
    let exit = call.exit.unwrap();
    (exit.cause, exit.status)
}

fn kind(error: &GuestError) -> FailureKind {
    match error {
        GuestError::Refused { failure, .. } => failure.kind,
        other => panic!("not a refusal: {other:?}"),
    }
}

/// More ends than a guest may send messages that nobody waits for.
#[tokio::test]
async fn ends_of_calls_that_nobody_follows_are_no_offence() {
    let process = GuestProcess::start();
    let guest = connect(&process, 1).await;
    for number in 0..4300 {
        let call = format!("call-{number}");
        drop(guest.exec(Exec { argv: vec!["/bin/true".into()], ..shell(&call, "") }).await.unwrap());
    }
    let (output, ended) = finish(guest.exec(shell("last", "echo still here")).await.unwrap()).await;
    assert_eq!((output.as_str(), outcome(&ended)), ("still here\n", (ExitCause::Exited, 0)));
}

#[tokio::test]
async fn the_end_of_a_program_that_nobody_follows_is_noticed_however_soon_it_comes() {
    let process = GuestProcess::start();
    let guest = connect(&process, 1).await;
    let mut exits = guest.exits();
    for number in 0..50 {
        let name = format!("c{number}");
        guest.start(shell(&name, "true")).await.unwrap();
        while guest.status(&name).await.unwrap().exit.is_none() {
            tokio::time::timeout(Duration::from_secs(20), exits.changed()).await.unwrap().unwrap();
        }
    }
    drop(process);
    let closed = async { while exits.changed().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("the link is lost");
}

#[tokio::test]
async fn a_program_runs_and_its_row_stays_until_it_is_forgotten() {
    let process = GuestProcess::start();
    let guest = connect(&process, 1).await;
    let running = guest.exec(shell("a", "echo out; echo err >&2; exit 3")).await.unwrap();
    assert!(running.pid.unwrap() > 0);
    let (output, ended) = finish(running).await;
    assert_eq!(output, "out\nerr\n");
    assert_eq!(outcome(&ended), (ExitCause::Exited, 3));
    assert_eq!(guest.status("a").await.unwrap(), ended);
    assert_eq!(kind(&guest.exec(shell("a", "true")).await.unwrap_err()), FailureKind::Exists);
    guest.forget("a").await.unwrap();
    assert_eq!(kind(&guest.status("a").await.unwrap_err()), FailureKind::NotFound);
}

#[tokio::test]
async fn a_refused_start_says_what_was_wrong() {
    let process = GuestProcess::start();
    let guest = connect(&process, 1).await;
    let missing = Exec { argv: vec!["no-such-program".into()], ..shell("a", "") };
    let error = guest.exec(missing).await.unwrap_err();
    assert_eq!(error.to_string(), "the guest refused to start a program");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "exec: program `no-such-program` (No such file or directory (os error 2))");
    let huge = Exec { env: vec![("A".into(), "x".repeat(70_000))], ..shell("a", "true") };
    assert!(matches!(guest.exec(huge).await.unwrap_err(), GuestError::TooLarge { size: 70_000.., .. }));
    finish(guest.exec(shell("a", "true")).await.unwrap()).await;
}

#[tokio::test]
async fn stop_and_signal_reach_the_call() {
    let process = GuestProcess::start();
    let guest = connect(&process, 1).await;
    let script = "trap 'echo heard' USR1; echo ready; while :; do sleep 0.01; done";
    let mut running = guest.exec(shell("a", script)).await.unwrap();
    let mut bytes = [0; 6];
    running.output.read_exact(&mut bytes).await.unwrap();
    guest.signal("a", 10).await.unwrap();
    running.output.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"heard\n");
    guest.stop("a", Duration::from_secs(20)).await.unwrap();
    assert_eq!(outcome(&running.exit().await.unwrap()), (ExitCause::Stopped, 128 + 15));
    // Asked again it says the same.
    assert_eq!(outcome(&running.exit().await.unwrap()), (ExitCause::Stopped, 128 + 15));
    assert_eq!(kind(&guest.stop("b", Duration::ZERO).await.unwrap_err()), FailureKind::NotFound);
}

#[tokio::test]
async fn a_restarted_host_finds_its_call_again() {
    let process = GuestProcess::start();
    let first = connect(&process, 1).await;
    let gate = process.workspace().join("gate");
    let script = format!("echo before; until [ -e '{}' ]; do sleep 0.01; done; echo after; exit 6", gate.display());
    let mut running = first.exec(shell("a", &script)).await.unwrap();
    let mut bytes = [0; 7];
    running.output.read_exact(&mut bytes).await.unwrap();
    drop((first, running));

    let second = connect(&process, 2).await;
    assert_eq!(second.status("a").await.unwrap().exit, None);
    let running = second.attach("a", 3).await.unwrap();
    std::fs::write(gate, "").unwrap();
    let (output, ended) = finish(running).await;
    assert_eq!(output, "ore\nafter\n");
    assert_eq!(outcome(&ended), (ExitCause::Exited, 6));
    // Of an ended call too.
    let (output, again) = finish(second.attach("a", 0).await.unwrap()).await;
    assert_eq!((output.as_str(), again), ("before\nafter\n", ended));
}

#[tokio::test]
async fn a_host_that_is_not_the_newest_is_refused() {
    let process = GuestProcess::start();
    let control = process.control.as_ref().unwrap();
    // The newer host, by hand, so that nobody else reads from the socket.
    let hello = ToGuest { epoch: 6, id: 1, body: Request::Hello { version: VERSION } };
    socket::send(control.as_fd(), &hello, None).unwrap();
    assert!(wait_for(control.as_fd(), PollFlags::IN, PATIENCE));
    assert_eq!(socket::receive::<FromGuest>(control.as_fd()).unwrap().0.epoch, 6);
    let error = Guest::connect(control.try_clone().unwrap(), 5, Deadlines::default()).await.unwrap_err();
    assert_eq!(kind(&error), FailureKind::StaleEpoch);
    // The same epoch once more is a new link of the same host.
    connect(&process, 6).await;
}

#[tokio::test]
async fn a_second_attach_takes_the_call_over() {
    let process = GuestProcess::start();
    let guest = connect(&process, 1).await;
    let mut first = guest.exec(shell("a", "echo one; read -r x; sleep 1000")).await.unwrap();
    let mut second = guest.attach("a", 0).await.unwrap();
    assert!(matches!(first.exit().await.unwrap_err(), GuestError::Replaced { call } if call == "a"));
    guest.stop("a", Duration::ZERO).await.unwrap();
    assert_eq!(outcome(&second.exit().await.unwrap()), (ExitCause::Stopped, 128 + 9));
}

#[tokio::test]
async fn the_death_of_the_guest_is_told_to_everybody() {
    let process = GuestProcess::start();
    let guest = connect(&process, 1).await;
    // No shell, so that killing this one process leaves nothing.
    let sleep = Exec { argv: vec!["sleep".into(), "1000".into()], ..shell("a", "") };
    let mut running = guest.exec(sleep).await.unwrap();
    rustix::process::kill_process(process.pid, rustix::process::Signal::KILL).unwrap();
    assert!(matches!(running.exit().await.unwrap_err(), GuestError::Link(LinkLost::Closed)));
    assert!(matches!(guest.status("a").await.unwrap_err(), GuestError::Link(LinkLost::Closed)));
    // The guest was killed, not PID 1 of a namespace: what it left must be ended here.
    let pid = rustix::process::Pid::from_raw(running.pid.unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_calls_from_many_tasks_do_not_mix() {
    let process = GuestProcess::start();
    let guest = connect(&process, 1).await;
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let guest = guest.clone();
            tokio::spawn(async move {
                let call = format!("call{number}");
                let script =
                    format!("echo {number}; head -c 100000 /dev/zero | tr '\\0' {}; exit {number}", number % 10);
                let (output, ended) = finish(guest.exec(shell(&call, &script)).await.unwrap()).await;
                let digit = (number % 10).to_string();
                assert_eq!(output, format!("{number}\n{}", digit.repeat(100_000)));
                assert_eq!(outcome(&ended), (ExitCause::Exited, number));
                guest.forget(&call).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_call_whose_output_nobody_reads_holds_up_no_other() {
    let process = GuestProcess::start();
    let guest = connect(&process, 1).await;
    let stuck = guest.exec(shell("stuck", "head -c 4000000 /dev/zero")).await.unwrap();
    let (output, _) = finish(guest.exec(shell("quick", "echo quick")).await.unwrap()).await;
    assert_eq!(output, "quick\n");
    let (output, ended) = finish(stuck).await;
    assert_eq!((output.len(), ended.output), (4_000_000, 4_000_000));
}

#[tokio::test]
async fn files_are_written_read_and_listed() {
    let process = GuestProcess::start();
    let guest = connect(&process, 1).await;
    let content: Vec<u8> = (0..700_000u32).flat_map(u32::to_le_bytes).collect();
    guest.write_file("sub/data", &content, 0o600).await.unwrap();
    let read = guest.read_file("sub/data", u64::MAX).await.unwrap();
    assert!(read.bytes == content);
    assert_eq!((read.size, read.mode, read.truncated), (2_800_000, 0o600, false));
    let read = guest.read_file("sub/data", 1_000_001).await.unwrap();
    assert!(read.bytes == content[..1_000_001] && read.truncated);
    assert_eq!(read.size, 2_800_000);
    let read = guest.read_file("sub/data", 2_800_000).await.unwrap();
    assert!(read.bytes == content && !read.truncated);
    assert_eq!(guest.read_file("sub/data", 0).await.unwrap().bytes, b"");
    guest.write_file("empty", b"", 0o644).await.unwrap();
    assert_eq!(guest.read_file("empty", 10).await.unwrap().bytes, b"");
    let listing = guest.list("", 100).await.unwrap();
    let names: Vec<_> = listing.entries.iter().map(|entry| (entry.name.as_str(), entry.kind)).collect();
    assert_eq!(names, [("empty", EntryKind::File), ("sub", EntryKind::Directory)]);
    assert!(!listing.truncated && guest.list("", 1).await.unwrap().truncated);
}

#[tokio::test]
async fn files_that_are_none_or_lie_outside_are_refused() {
    let process = GuestProcess::start();
    let guest = connect(&process, 1).await;
    std::fs::create_dir(process.workspace().join("directory")).unwrap();
    for (path, expected) in [
        ("missing", FailureKind::NotFound),
        ("directory", FailureKind::Invalid),
        ("../outside", FailureKind::Outside),
        ("/etc/passwd", FailureKind::Outside),
    ] {
        assert_eq!(kind(&guest.read_file(path, 10).await.unwrap_err()), expected, "{path}");
    }
    assert_eq!(kind(&guest.write_file("../outside", b"x", 0o644).await.unwrap_err()), FailureKind::Outside);
    assert_eq!(kind(&guest.list("missing", 10).await.unwrap_err()), FailureKind::NotFound);
    let large = vec![0; usize::try_from(MAX_FILE).unwrap() + 1];
    assert!(matches!(guest.write_file("a", &large, 0o644).await.unwrap_err(), GuestError::TooLarge { .. }));
}

#[tokio::test]
async fn a_piped_program_talks_both_ways_and_ends_with_its_host() {
    let process = GuestProcess::start();
    let guest = connect(&process, 1).await;
    let piped = |call: &str, script: &str| Exec { stdio: Stdio::Piped, ..shell(call, script) };
    let mut running = guest.exec(piped("a", "rev; echo complaint >&2")).await.unwrap();
    running.output.write_all(b"abc\n").await.unwrap();
    running.output.shutdown().await.unwrap();
    let (output, ended) = finish(running).await;
    assert_eq!((output.as_str(), outcome(&ended)), ("cba\n", (ExitCause::Exited, 0)));
    assert_eq!(finish(guest.attach("a", 0).await.unwrap()).await.0, "complaint\n");
    let (stream, mut end) = guest.exec(piped("b", "cat; sleep 1000")).await.unwrap().split();
    drop(stream);
    assert_eq!(outcome(&end.exit().await.unwrap()).0, ExitCause::Stopped);
}

#[tokio::test]
async fn a_terminal_is_typed_into_resized_and_found_again() {
    let process = GuestProcess::start();
    let guest = connect(&process, 1).await;
    let window = Window { rows: 10, columns: 40 };
    let script = "stty -echo; echo ready; read -r line; stty size; echo got $line; read -r line";
    let exec = Exec {
        stdio: Stdio::Terminal(window),
        overflow: Overflow::DropHead,
        output_limit: MIN_TAIL,
        label: "sh".into(),
        ..shell("tty:main", script)
    };
    let mut running = guest.exec(exec).await.unwrap();
    let mut bytes = [0; 7];
    running.output.read_exact(&mut bytes).await.unwrap();
    guest.resize("tty:main", Window { rows: 20, columns: 60 }).await.unwrap();
    running.output.write_all(b"words\r").await.unwrap();
    let mut bytes = [0; 17];
    running.output.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"20 60\r\ngot words\r");
    drop((guest, running));

    let second = connect(&process, 2).await;
    let (listed, truncated) = second.calls("tty:").await.unwrap();
    assert_eq!((listed[0].row.call.as_str(), listed[0].label.as_str(), truncated), ("tty:main", "sh", false));
    let running = second.attach("tty:main", 0).await.unwrap();
    assert_eq!(running.first, 0);
    second.stop("tty:main", Duration::from_secs(20)).await.unwrap();
    let (output, ended) = finish(running).await;
    assert_eq!(output, "ready\r\n20 60\r\ngot words\r\n");
    assert_eq!(outcome(&ended).0, ExitCause::Stopped);
    assert_eq!(kind(&second.resize("tty:main", window).await.unwrap_err()), FailureKind::Invalid);
}

#[tokio::test]
async fn a_follower_of_a_tail_is_told_where_it_begins() {
    let process = GuestProcess::start();
    let guest = connect(&process, 1).await;
    let exec = Exec { overflow: Overflow::DropHead, output_limit: MIN_TAIL, ..shell("a", "seq 1 10000") };
    let (stream, mut end) = guest.exec(exec).await.unwrap().split();
    drop(stream);
    let ended = end.exit().await.unwrap();
    assert_eq!((ended.output, ended.first), (48_894, 48_894 - MIN_TAIL));
    let running = guest.attach("a", 100).await.unwrap();
    assert_eq!(running.first, ended.first);
    assert!(finish(running).await.0.ends_with("\n9999\n10000\n"));
    assert_eq!(guest.attach("a", 48_000).await.unwrap().first, 48_000);
}
