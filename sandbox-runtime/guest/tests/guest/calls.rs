//! Calls, seen through the protocol: how they start, what they write, how they end, and what they leave behind.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::host::{Host, all, line, shell};
use crate::support::{GuestProcess, PATIENCE, await_end, lives};
use ostler_wire::FailureKind;
use ostler_wire::guest::{Call, Exec, Exit, ExitCause, Reply, Request};
use rustix::process::Pid;

fn start() -> (GuestProcess, Host) {
    let guest = GuestProcess::start();
    let host = Host::connect(guest.control.as_ref().unwrap(), 1);
    (guest, host)
}

fn pid(text: &str) -> Pid {
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

fn outcome(call: &Call) -> (ExitCause, i32) {
    let exit = call.exit.unwrap();
    (exit.cause, exit.status)
}

#[test]
fn output_and_errors_come_in_the_order_of_writing_with_the_exit_status() {
    let (_guest, mut host) = start();
    let output = host.shell("a", "echo one; echo two >&2; echo three; exit 7");
    assert_eq!(all(output), "one\ntwo\nthree\n");
    let ended = host.exited("a");
    assert_eq!(outcome(&ended), (ExitCause::Exited, 7));
    assert_eq!(ended.output, 14);
    assert_eq!(host.status("a"), ended);
}

#[test]
fn a_signal_that_ends_the_program_shows_in_the_status() {
    let (_guest, mut host) = start();
    assert_eq!(all(host.shell("a", "kill -SEGV $$")), "");
    assert_eq!(outcome(&host.exited("a")), (ExitCause::Exited, 128 + 11));
}

#[test]
fn a_command_starts_with_clean_signals_descriptors_and_environment() {
    let (_guest, mut host) = start();
    let script = "read -r pid name state parent group rest < /proc/$$/stat; [ $group = $$ ] && echo leader; grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd; pwd; env | sort; cat";
    let mut exec = shell("a", script);
    exec.env.push(("GREETING".into(), "hello there".into()));
    exec.cwd = "/usr/lib".into();
    let text = all(host.exec(exec).unwrap());
    let lines: Vec<&str> = text.lines().collect();
    // `ls` itself holds 3; standard input is empty, so `cat` ends.
    assert_eq!(
        lines,
        [
            "leader",
            "SigBlk:\t0000000000000000",
            "SigIgn:\t0000000000000000",
            "0",
            "1",
            "2",
            "3",
            "/usr/lib",
            "GREETING=hello there",
            "PATH=/usr/bin:/bin",
            "PWD=/usr/lib"
        ]
    );
}

#[test]
fn what_cannot_be_started_is_refused_with_its_name_and_leaves_nothing() {
    let (guest, mut host) = start();
    std::fs::write(guest.workspace().join("plain"), "no program").unwrap();
    let plain = guest.workspace().join("plain").to_str().unwrap().to_owned();
    let argv = |program: &str| Exec { argv: vec![program.into()], ..shell("a", "") };
    let cases = [
        (argv("/no/such/program"), FailureKind::NotFound, "program `/no/such/program`"),
        (argv("no-such-program"), FailureKind::NotFound, "program `no-such-program`"),
        (argv(&plain), FailureKind::System, plain.as_str()),
        (argv("/usr"), FailureKind::System, "program `/usr`"),
        (
            Exec { cwd: "/no/such/directory".into(), ..shell("a", "") },
            FailureKind::NotFound,
            "working directory `/no/such/directory`",
        ),
        (Exec { cwd: plain.clone(), ..shell("a", "") }, FailureKind::Invalid, plain.as_str()),
        (Exec { argv: vec![], ..shell("a", "") }, FailureKind::Invalid, "names no program"),
        (Exec { call: String::new(), ..shell("a", "") }, FailureKind::Invalid, "call identifier"),
        (Exec { call: "x".repeat(97), ..shell("a", "") }, FailureKind::Invalid, "call identifier"),
        (Exec { output_limit: u64::MAX, ..shell("a", "") }, FailureKind::Limit, "output limit"),
    ];
    for (exec, kind, words) in cases {
        let failure = host.exec(exec.clone()).unwrap_err();
        assert_eq!(failure.kind, kind, "{exec:?}: {failure}");
        assert!(failure.detail.contains(words), "{failure}");
        assert_eq!(host.ask(Request::Status { call: "a".into() }).unwrap_err().kind, FailureKind::NotFound);
    }
    // Without a socket, and with something that is none.
    for descriptor in [None, Some(std::fs::File::open("/dev/null").unwrap())] {
        let answer = host.ask_with(Request::Exec(shell("a", "")), descriptor.as_ref().map(AsFd::as_fd)).0;
        assert_eq!(answer.unwrap_err().kind, FailureKind::Invalid);
    }
    assert_eq!(all(host.shell("a", "echo fine")), "fine\n");
    // The only end that is told: what was refused has none.
    assert_eq!(host.exited("a").output, 5);
}

#[test]
fn a_program_is_searched_in_the_path_of_the_call() {
    let (guest, mut host) = start();
    let directory = guest.workspace();
    for (name, mode) in [("one", 0o644), ("two", 0o755)] {
        std::fs::create_dir(directory.join(name)).unwrap();
        let program = directory.join(name).join("greet");
        std::fs::write(&program, "#!/bin/sh\necho from $0\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let at = |path: &str| Exec {
        argv: vec!["greet".into()],
        env: vec![("PATH".into(), path.replace('@', directory.to_str().unwrap()))],
        ..shell("a", "")
    };
    assert_eq!(
        all(host.exec(at("/nowhere:@/one:@/two")).unwrap()),
        format!("from {}/two/greet\n", directory.display())
    );
    assert_eq!(host.exec(Exec { call: "b".into(), ..at("@/one") }).unwrap_err().errno, 13);
}

#[test]
fn a_second_call_with_the_same_identifier_is_refused() {
    let (_guest, mut host) = start();
    all(host.shell("a", "true"));
    host.exited("a");
    assert_eq!(host.exec(shell("a", "true")).unwrap_err().kind, FailureKind::Exists);
    assert_eq!(host.ask(Request::Forget { call: "a".into() }), Ok(Reply::Done));
    assert_eq!(host.ask(Request::Status { call: "a".into() }).unwrap_err().kind, FailureKind::NotFound);
    all(host.shell("a", "true"));
}

#[test]
fn the_time_limit_ends_a_grandchild_that_left_the_session_and_ignores_the_polite_signal() {
    let (_guest, mut host) = start();
    let script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 100; done' & wait";
    let mut output = host.exec(Exec { timeout_ms: 300, ..shell("a", script) }).unwrap();
    let grandchild = pid(&line(&mut output));
    assert!(lives(grandchild));
    let ended = host.exited("a");
    assert_eq!(outcome(&ended), (ExitCause::Timeout, 128 + 9));
    assert!(!lives(grandchild));
}

#[test]
fn stop_asks_first_and_waits_for_every_descendant() {
    let (_guest, mut host) = start();
    // The shell says on standard error which signal ended its `sleep`.
    let script = "exec 2>/dev/null; setsid sleep 1000 & echo $!; trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let mut output = host.shell("a", script);
    let background = pid(&line(&mut output));
    assert_eq!(line(&mut output), "ready");
    assert_eq!(host.ask(Request::Stop { call: "a".into(), grace_ms: 20_000 }), Ok(Reply::Done));
    assert_eq!(all(output), "bye\n");
    assert_eq!(outcome(&host.exited("a")), (ExitCause::Stopped, 3));
    assert!(!lives(background));
}

#[test]
fn stop_ends_a_shell_that_forks_without_end() {
    let (_guest, mut host) = start();
    let script = "trap '' TERM; echo go; spawn() { (while :; do (sleep 0.05; sleep 0.05) & sleep 0.01; done) & }; spawn; spawn; wait";
    let mut output = host.shell("a", script);
    assert_eq!(line(&mut output), "go");
    assert_eq!(host.ask(Request::Stop { call: "a".into(), grace_ms: 50 }), Ok(Reply::Done));
    assert_eq!(outcome(&host.exited("a")).0, ExitCause::Stopped);
    assert_eq!(host.ask(Request::Stop { call: "nobody".into(), grace_ms: 0 }).unwrap_err().kind, FailureKind::NotFound);
}

#[test]
fn the_output_limit_ends_the_call_and_keeps_what_fitted() {
    let (_guest, mut host) = start();
    let output = host.exec(Exec { output_limit: 100_000, ..shell("a", "yes 123456789") }).unwrap();
    assert_eq!(all(output), "123456789\n".repeat(10_000));
    let ended = host.exited("a");
    assert_eq!(outcome(&ended), (ExitCause::OutputLimit, 128 + 15));
    assert_eq!(ended.output, 100_000);
    // Exactly the limit is within it.
    let output = host.exec(Exec { output_limit: 10, ..shell("b", "echo 123456789") }).unwrap();
    assert_eq!(all(output), "123456789\n");
    assert_eq!(outcome(&host.exited("b")), (ExitCause::Exited, 0));
    // More than it in one piece, from a program that ends at once.
    let output = host.exec(Exec { output_limit: 4, ..shell("c", "echo 123456789") }).unwrap();
    assert_eq!(all(output), "1234");
    assert_eq!(outcome(&host.exited("c")).0, ExitCause::OutputLimit);
}

#[test]
fn what_stays_in_the_background_neither_holds_the_call_up_nor_dies_of_its_output() {
    let (_guest, mut host) = start();
    let script = "(trap 'echo more; echo more >&2; exec sleep 1000' USR1; echo $BASHPID; while :; do sleep 0.01; done) & echo main; exit 4";
    let mut exec = shell("a", script);
    exec.argv[0] = "/bin/bash".into();
    let mut output = host.exec(exec).unwrap();
    let (first, second) = (line(&mut output), line(&mut output));
    let background = pid(if first == "main" { &second } else { &first });
    assert_eq!(outcome(&host.exited("a")), (ExitCause::Exited, 4));
    assert_eq!(all(output), "");
    // It writes into a pipe that nobody wants any more, and lives on; stopping the ended call finds it.
    rustix::process::kill_process(background, rustix::process::Signal::USR1).unwrap();
    let name = format!("/proc/{}/comm", background.as_raw_pid());
    let until = std::time::Instant::now() + PATIENCE;
    while std::fs::read_to_string(&name).unwrap().trim() != "sleep" {
        assert!(std::time::Instant::now() < until, "the background job did not get past its output");
        std::thread::yield_now();
    }
    assert!(lives(background));
    assert_eq!(host.ask(Request::Forget { call: "a".into() }), Ok(Reply::Done));
    assert!(lives(background));
    let script = format!("kill {}", background.as_raw_pid());
    all(host.shell("b", &script));
    await_end(background);
}

#[test]
fn stop_of_an_ended_call_ends_what_it_left_in_the_background() {
    let (_guest, mut host) = start();
    let text = all(host.shell("a", "sleep 1000 >/dev/null 2>&1 & echo $!"));
    let ended = host.exited("a");
    assert!(lives(pid(&text)));
    assert_eq!(host.ask(Request::Stop { call: "a".into(), grace_ms: 20_000 }), Ok(Reply::Done));
    await_end(pid(&text));
    assert_eq!(host.status("a"), ended);
}

#[test]
fn a_command_that_kills_its_supervisor_ends_its_call_and_everything_below() {
    let (_guest, mut host) = start();
    let script = "echo $$; setsid sleep 1000 & echo $!; kill -9 $PPID; sleep 1000";
    let mut output = host.shell("a", script);
    let main = pid(&line(&mut output));
    let other = pid(&line(&mut output));
    assert_eq!(outcome(&host.exited("a")), (ExitCause::Exited, 128 + 9));
    await_end(main);
    await_end(other);
    assert_eq!(all(host.shell("b", "echo fine")), "fine\n");
}

#[test]
fn a_command_that_stops_its_supervisor_goes_on_and_can_be_stopped() {
    let (_guest, mut host) = start();
    // At its first moment, before the supervisor could say that it runs, and later.
    assert_eq!(all(host.shell("early", "kill -STOP $PPID")), "");
    assert_eq!(outcome(&host.exited("early")), (ExitCause::Exited, 0));
    let mut output = host.shell("a", "kill -STOP $PPID; echo $$; sleep 1000");
    let main = pid(&line(&mut output));
    assert_eq!(host.ask(Request::Stop { call: "a".into(), grace_ms: 10 }), Ok(Reply::Done));
    assert_eq!(outcome(&host.exited("a")).0, ExitCause::Stopped);
    assert!(!lives(main));
}

#[test]
fn a_signal_reaches_the_program_while_it_runs() {
    let (_guest, mut host) = start();
    let mut output = host.shell("a", "trap 'echo heard; exit 5' USR1; echo ready; while :; do sleep 0.01; done");
    assert_eq!(line(&mut output), "ready");
    let signal = |signal| Request::Signal { call: "a".into(), signal };
    assert_eq!(host.ask(signal(999)).unwrap_err().kind, FailureKind::Invalid);
    assert_eq!(host.ask(signal(10)), Ok(Reply::Done));
    assert_eq!(all(output), "heard\n");
    assert_eq!(outcome(&host.exited("a")), (ExitCause::Exited, 5));
    assert_eq!(host.ask(signal(10)).unwrap_err().kind, FailureKind::NotFound);
}

#[test]
fn a_running_call_cannot_be_forgotten() {
    let (_guest, mut host) = start();
    let _output = host.shell("a", "sleep 1000");
    assert_eq!(host.ask(Request::Forget { call: "a".into() }).unwrap_err().kind, FailureKind::Invalid);
    assert_eq!(host.status("a").exit, None);
}

#[test]
fn a_reader_that_never_reads_holds_up_nobody_else() {
    let (_guest, mut host) = start();
    let slow = host.shell("slow", "head -c 1000000 /dev/zero | tr '\\0' x");
    for number in 0..20 {
        let output = host.shell(&format!("quick{number}"), "echo quick");
        assert_eq!(all(output), "quick\n");
    }
    assert_eq!(all(slow).len(), 1_000_000);
    assert_eq!(host.exited("slow").output, 1_000_000);
}

#[test]
fn a_hundred_calls_at_once_each_get_their_own_output() {
    let (_guest, mut host) = start();
    let started: Vec<(String, UnixStream)> = (0..100)
        .map(|number| {
            let call = format!("call{number}");
            let output = host
                .shell(&call, &format!("read -r x < /proc/self/stat; echo {number}; echo {number} >&2; exit {number}"));
            (call, output)
        })
        .collect();
    for (number, (call, output)) in started.into_iter().enumerate() {
        assert_eq!(all(output), format!("{number}\n{number}\n"));
        assert_eq!(outcome(&host.exited(&call)), (ExitCause::Exited, i32::try_from(number).unwrap()));
    }
}

#[test]
fn the_oldest_ended_calls_make_room_in_the_table() {
    let (_guest, mut host) = start();
    for number in 0..=ostler_guest::MAX_CALLS {
        let call = format!("call{number}");
        all(host.exec(Exec { argv: vec!["/bin/true".into()], ..shell(&call, "") }).unwrap());
        host.exited(&call);
    }
    assert_eq!(host.ask(Request::Status { call: "call0".into() }).unwrap_err().kind, FailureKind::NotFound);
    assert_eq!(outcome(&host.status("call1")), (ExitCause::Exited, 0));
}

#[test]
fn a_row_tells_how_long_the_program_ran() {
    let (_guest, mut host) = start();
    all(host.shell("a", "sleep 0.2"));
    let Some(Exit { wall_us, .. }) = host.exited("a").exit else { panic!("no exit") };
    assert!((200_000..30_000_000).contains(&wall_us), "{wall_us}");
}

#[test]
fn a_reader_that_goes_away_does_not_end_the_call() {
    let (_guest, mut host) = start();
    let mut output = host.shell("a", "echo go; read -r x < /proc/self/stat; yes | head -c 500000; echo end");
    let mut some = [0; 3];
    output.read_exact(&mut some).unwrap();
    drop(output);
    assert_eq!(host.exited("a").output, 500_000 + 7);
    let (row, replay) = host.attach("a", 500_003);
    assert_eq!(row, host.status("a"));
    assert_eq!(all(replay), "end\n");
}
