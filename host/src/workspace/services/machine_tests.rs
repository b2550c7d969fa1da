//! The machine against scripts of inputs, and against random ones.

use proptest::prelude::*;

use super::super::declaration::parse;
use super::*;

fn machine(text: &str) -> Machine {
    Machine::new(parse(text.as_bytes()).unwrap())
}

/// One service with a rule.
fn web(restart: &str) -> Machine {
    machine(&format!("[web]\ncommand = \"x\"\nrestart = \"{restart}\""))
}

fn fresh(count: usize) -> Input {
    Input::Begin(vec![Found { told: None, call: Call::None }; count])
}

fn end(status: i32) -> End {
    End { status, stopped: false, ran: Duration::from_millis(10), output: "words".into() }
}

fn ended(id: Id, run: u64, status: i32) -> Input {
    Input::Ended { id, run, end: end(status) }
}

fn asked(id: Id, wish: Wish) -> Input {
    Input::Asked { id, wish, by: "Robin".into() }
}

/// Effects in words, one word each.
fn words(effects: &[Effect]) -> String {
    let word = |effect: &Effect| match effect {
        Effect::Start { id, run, .. } => format!("start{id}.{run}"),
        Effect::Probe { id, run } => format!("probe{id}.{run}"),
        Effect::Stop { id } => format!("stop{id}"),
        Effect::Pause { id, time, .. } => format!("pause{id}.{}", time.as_millis()),
        Effect::Tell { id, state, .. } => format!("{}{id}", state.as_str()),
        Effect::Settled => "settled".into(),
        Effect::Over => "over".into(),
    };
    effects.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Gives inputs and compares what follows from each.
fn expect(machine: &mut Machine, steps: impl IntoIterator<Item = (Input, &'static str)>) {
    for (input, expected) in steps {
        let shown = format!("{input:?}");
        assert_eq!(words(&machine.step(input)), expected, "{shown}");
    }
}

const PAIR: &str = "[database]\ncommand = \"x\"\n[web]\ncommand = \"y\"\nafter = [\"database\"]";

#[test]
fn services_start_in_order_each_when_those_before_it_are_ready() {
    let mut machine = machine(PAIR);
    expect(
        &mut machine,
        [
            (fresh(2), "start0.1"),
            (Input::Started { id: 0, run: 1 }, "probe0.1"),
            (Input::Ready { id: 0, run: 1 }, "ready0 start1.1"),
            (Input::Started { id: 1, run: 1 }, "probe1.1"),
            (Input::Ready { id: 1, run: 1 }, "ready1 settled"),
            (Input::Ready { id: 1, run: 1 }, ""),
        ],
    );
}

#[test]
fn nobody_waits_for_one_that_keeps_failing_nor_for_those_after_it() {
    let mut machine = machine(PAIR);
    expect(
        &mut machine,
        [
            (fresh(2), "start0.1"),
            (ended(0, 1, 1), "restarting0 pause0.500"),
            (Input::PauseOver { id: 0, run: 1 }, "start0.2"),
            (ended(0, 2, 1), "restarting0 pause0.1000"),
            (Input::PauseOver { id: 0, run: 2 }, "start0.3"),
            (ended(0, 3, 1), "restarting0 pause0.2000 settled"),
            (Input::PauseOver { id: 0, run: 3 }, "start0.4"),
            (Input::Ready { id: 0, run: 4 }, "ready0 start1.1"),
        ],
    );
}

#[test]
fn without_services_nobody_waits() {
    expect(&mut machine(""), [(fresh(0), "settled"), (Input::WaitOver, ""), (Input::EndAll, "over")]);
}

#[test]
fn one_that_waits_for_a_failed_one_fails_with_it() {
    let mut machine = machine(&PAIR.replace("command = \"x\"", "command = \"x\"\nrestart = \"never\""));
    expect(&mut machine, [(fresh(2), "start0.1"), (ended(0, 1, 3), "failed0 failed1 settled")]);
    assert_eq!(machine.statuses()[1].why.as_deref(), Some("`database`, after which it starts, failed"));
    // Asked for, it starts without it.
    expect(&mut machine, [(asked(1, Wish::Restart), "start1.1")]);
}

#[test]
fn one_that_did_its_work_counts_as_ready_for_those_after_it() {
    expect(&mut machine(PAIR), [(fresh(2), "start0.1"), (ended(0, 1, 0), "ended0 start1.1")]);
}

#[test]
fn the_rule_says_what_is_started_again() {
    for (rule, status, expected) in [
        ("never", 0, "ended0 settled"),
        ("never", 1, "failed0 settled"),
        ("on-failure", 0, "ended0 settled"),
        ("on-failure", 1, "restarting0 pause0.500"),
        ("always", 0, "restarting0 pause0.500"),
    ] {
        let mut machine = web(rule);
        expect(&mut machine, [(fresh(1), "start0.1")]);
        assert_eq!(words(&machine.step(ended(0, 1, status))), expected, "{rule} {status}");
    }
}

#[test]
fn pauses_grow_and_one_that_fails_again_and_again_is_given_up() {
    let mut machine = web("on-failure");
    expect(&mut machine, [(fresh(1), "start0.1")]);
    for (run, pause) in [(1, 500), (2, 1000), (3, 2000), (4, 4000), (5, 8000)] {
        let settled = if run == u64::from(HOPELESS) { " settled" } else { "" };
        assert_eq!(words(&machine.step(ended(0, run, 1))), format!("restarting0 pause0.{pause}{settled}"));
        assert_eq!(words(&machine.step(Input::PauseOver { id: 0, run })), format!("start0.{}", run + 1));
    }
    expect(&mut machine, [(ended(0, 6, 1), "failed0"), (Input::PauseOver { id: 0, run: 6 }, "")]);
    let status = &machine.statuses()[0];
    assert_eq!(
        status.why.as_deref(),
        Some("it ended with status 1; it was started again 5 times in a row and is given up")
    );
    assert_eq!(status.restarts, MAX_RESTARTS);
    // Who asks for it gives it its chances back.
    expect(&mut machine, [(asked(0, Wish::Restart), "start0.7"), (ended(0, 7, 1), "restarting0 pause0.500")]);
}

#[test]
fn one_that_worked_for_a_while_begins_to_count_anew() {
    let mut machine = web("on-failure");
    expect(&mut machine, [(fresh(1), "start0.1"), (ended(0, 1, 1), "restarting0 pause0.500")]);
    expect(
        &mut machine,
        [(Input::PauseOver { id: 0, run: 1 }, "start0.2"), (Input::Ready { id: 0, run: 2 }, "ready0 settled")],
    );
    let end = End { ran: STEADY, ..end(1) };
    expect(&mut machine, [(Input::Ended { id: 0, run: 2, end }, "restarting0 pause0.500")]);
}

#[test]
fn one_that_is_not_ready_in_time_is_stopped_and_counts_as_failed() {
    let mut machine = web("never");
    let late = || Input::Late { id: 0, run: 1, why: "it was not ready".into() };
    expect(&mut machine, [(fresh(1), "start0.1"), (late(), "stop0"), (late(), "")]);
    expect(&mut machine, [(ended(0, 1, 143), "failed0 settled")]);
    assert_eq!(machine.statuses()[0].why.as_deref(), Some("it was not ready"));
}

#[test]
fn what_the_hooks_deny_fails_and_is_not_tried_again() {
    let mut machine = web("always");
    let denied = |may_help| Input::NotStarted { id: 0, run: 1, why: "denied".into(), may_help };
    expect(
        &mut machine,
        [(fresh(1), "start0.1"), (denied(MayHelp::No), "failed0 settled"), (denied(MayHelp::Yes), "")],
    );
}

#[test]
fn people_stop_and_start_and_nothing_of_an_earlier_start_counts() {
    let mut machine = web("always");
    expect(
        &mut machine,
        [
            (fresh(1), "start0.1"),
            (asked(0, Wish::Stop), "stop0"),
            (Input::Ready { id: 0, run: 1 }, ""),
            (ended(0, 1, 143), "stopped0 settled"),
            (asked(0, Wish::Stop), ""),
            (asked(0, Wish::Restart), "start0.2"),
            (ended(0, 1, 1), ""),
            (asked(0, Wish::Restart), "stop0"),
            (ended(0, 2, 143), "start0.3"),
            (Input::Ready { id: 0, run: 2 }, ""),
            (Input::Ready { id: 0, run: 3 }, "ready0"),
        ],
    );
}

#[test]
fn what_still_runs_is_taken_over_and_not_started_again() {
    let found = |told, call| Input::Begin(vec![Found { told, call }]);
    let table = [
        (Some(ServiceState::Ready), Call::Runs, "settled"),
        (Some(ServiceState::Starting), Call::Runs, "probe0.1"),
        (Some(ServiceState::Ready), Call::Ended(end(1)), "restarting0 pause0.500"),
        (Some(ServiceState::Failed), Call::Ended(end(1)), "settled"),
        (Some(ServiceState::Stopped), Call::Ended(end(143)), "settled"),
        (Some(ServiceState::Ended), Call::Ended(end(0)), "settled"),
        (Some(ServiceState::Restarting), Call::Ended(end(1)), "start0.1"),
        (Some(ServiceState::Ready), Call::None, "start0.1"),
        (None, Call::None, "start0.1"),
    ];
    for (told, call, expected) in table {
        let shown = format!("{told:?} {call:?}");
        assert_eq!(words(&web("on-failure").step(found(told, call))), expected, "{shown}");
    }
}

#[test]
fn the_wait_for_services_has_an_end_that_is_told() {
    expect(
        &mut machine(PAIR),
        [(fresh(2), "start0.1"), (Input::WaitOver, "starting0 waiting1 settled"), (Input::WaitOver, "")],
    );
}

#[test]
fn all_are_stopped_in_reverse_order_and_none_is_started_any_more() {
    let mut machine = machine(PAIR);
    expect(
        &mut machine,
        [
            (fresh(2), "start0.1"),
            (Input::Ready { id: 0, run: 1 }, "ready0 start1.1"),
            (Input::Ready { id: 1, run: 1 }, "ready1 settled"),
            (Input::EndAll, "stop1"),
            (asked(1, Wish::Restart), ""),
            (ended(1, 1, 143), "stop0"),
            (ended(0, 1, 1), "over"),
        ],
    );
}

fn input() -> impl Strategy<Value = Input> {
    let (id, run) = (0_usize..4, 0_u64..4);
    (0..10, id, run, any::<bool>(), 0..3).prop_map(|(kind, id, run, flag, status)| match kind {
        0 | 1 => Input::Started { id, run },
        2 | 3 => Input::Ready { id, run },
        4 => Input::Late { id, run, why: "late".into() },
        5 => Input::Ended { id, run, end: End { stopped: flag, ..end(status) } },
        6 => Input::PauseOver { id, run },
        7 => asked(id, if flag { Wish::Stop } else { Wish::Restart }),
        8 => Input::WaitOver,
        _ => Input::NotStarted { id, run, why: "no".into(), may_help: if flag { MayHelp::Yes } else { MayHelp::No } },
    })
}

proptest! {
    /// Whatever comes: a start is of a service that does not run, never before those before it had their turn unless asked
    /// for, and in the end everything that runs is stopped, once.
    #[test]
    fn nothing_is_started_twice_and_everything_is_stopped(inputs in proptest::collection::vec(input(), 0..60)) {
        let mut machine = machine("[a]\ncommand = \"x\"\n[b]\ncommand = \"x\"\nafter = [\"a\"]\nrestart = \"always\"\n[c]\ncommand = \"x\"\nafter = [\"b\"]");
        let mut runs = [false; 3];
        let mut settled = 0;
        for input in std::iter::once(fresh(3)).chain(inputs) {
            if let Input::Ended { id, run, .. } | Input::NotStarted { id, run, .. } = &input
                && machine.running().any(|running| running == (*id, *run))
            {
                runs[*id] = false;
            }
            for effect in machine.step(input) {
                match effect {
                    Effect::Start { id, .. } => {
                        prop_assert!(!runs[id]);
                        runs[id] = true;
                    }
                    Effect::Stop { id } => prop_assert!(runs[id]),
                    Effect::Settled => settled += 1,
                    _ => {}
                }
            }
        }
        prop_assert!(settled <= 1);
        let mut effects = machine.step(Input::EndAll);
        for _ in 0..4 {
            let running: Vec<(Id, u64)> = machine.running().collect();
            if let Some((id, run)) = running.into_iter().max() {
                effects.extend(machine.step(ended(id, run, 0)));
            }
        }
        prop_assert!(effects.contains(&Effect::Over), "{:?}", effects);
        let starts_again = effects.iter().any(|effect| matches!(effect, Effect::Start { .. }));
        prop_assert!(!starts_again);
    }
}
