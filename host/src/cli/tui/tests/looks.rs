//! How the screen looks.

use std::time::Duration;

use insta::assert_snapshot;
use ostler_protocol::event::Person;
use serde_json::json;

use super::bench::*;
use crate::cli::feed::{Outage, Signal};
use crate::cli::tui::state::Input;

#[test]
fn a_fresh_session() {
    assert_snapshot!(Bench::fresh(80, 12).picture());
}

#[test]
fn a_turn_under_way_with_text_that_arrives() {
    let mut bench = Bench::working(80, 24);
    bench.delta(
        json!({"type": "tool_output", "call": call(3), "text": "collecting …\ntests/test_add.py::test_add PAS"}),
    );
    bench.delta(json!({"type": "model_text", "turn": TURN, "step": 3, "text": "The sign was wro"}));
    bench.write("And then add a test for négatif 日本");
    assert_snapshot!(bench.picture());
}

/// A session from its prompt to its pull request.
fn finished(columns: usize, rows: usize) -> Bench {
    let mut bench = Bench::working(columns, rows);
    bench.finished(3, "done", ".\n1 passed", 0);
    bench.said(4, "Done: the sign was wrong.", &[]);
    bench.event(json!({"type": "turn_finished", "turn": TURN, "outcome": {"outcome": "done"}}));
    bench.event(json!({"type": "branch_pushed", "branch": "ostler/01jd3kq4v5",
        "commit": "abcdef1234567890abcdef1234567890abcdef12"}));
    bench.event(json!({"type": "pull_request_opened", "pull_request": "pr_01jd3kq4v5w6x7y8z9a0b1c2d3", "number": 1,
        "title": "Make the test pass", "url": "http://127.0.0.1:7878/v1/pull-requests/pr_01jd3kq4v5w6x7y8z9a0b1c2d3",
        "decision": "dec_01jd3kq4v5w6x7y8z9a0b1c2d3"}));
    bench
}

#[test]
fn a_session_with_its_pull_request() {
    assert_snapshot!(finished(80, 24).picture());
}

#[test]
fn a_selected_call_that_is_open() {
    let mut bench = finished(80, 24);
    bench.keys("backtab backtab backtab enter");
    assert_snapshot!(bench.picture());
}

#[test]
fn forty_columns_and_ten_rows() {
    let mut bench = finished(40, 10);
    let closed = bench.picture();
    bench.keys("home pgdn");
    let middle = bench.picture();
    bench.said(5, "More came meanwhile.", &[]);
    bench.write("a prompt of several rows, which is longer than the screen is wide");
    assert_snapshot!(format!("{closed}\n\n{middle}\n\n{}", bench.picture()));
}

#[test]
fn reconnecting_and_given_up() {
    let mut bench = Bench::working(80, 10);
    let pause = Duration::from_millis(3_500);
    let why = "the connection to the host broke".to_owned();
    bench.signal(Signal::Outage(Outage { why, pause, attempt: 4, limit: 8 }));
    bench.input(Input::Second);
    let waiting = bench.picture();
    bench.input(Input::Ended("lost the connection to session ses_… in 8 attempts".into()));
    let ended = bench.picture();
    bench.signal(Signal::Connected);
    assert_snapshot!(format!("{waiting}\n\n{ended}\n\n{}", bench.picture()));
}

#[test]
fn the_sheet_of_keys() {
    let mut bench = Bench::fresh(80, 20);
    bench.keys("?");
    let mut narrow = Bench::fresh(40, 10);
    narrow.keys("f1 down down");
    assert_snapshot!(format!("{}\n\n{}", bench.picture(), narrow.picture()));
}

#[test]
fn the_question_whether_to_stop() {
    let mut bench = Bench::working(80, 10);
    bench.keys("ctrl-x");
    assert_snapshot!(bench.picture());
}

#[test]
fn a_prompt_that_could_not_be_sent_is_still_there() {
    let mut bench = Bench::fresh(80, 10);
    bench.write("Again, please");
    bench.keys("enter");
    let sending = bench.picture();
    bench
        .input(Input::Sent(Err("the host is not running at http://127.0.0.1:7878/; start it with `ostler up`".into())));
    assert_snapshot!(format!("{sending}\n\n{}", bench.picture()));
}

#[test]
fn what_others_wrote_steers_no_terminal() {
    let mut bench = Bench::fresh(60, 16);
    bench.prompt("look\u{1b}[2J at \u{202e}this");
    bench.said(1, "bell\u{7} and \u{9b}31m", &[(1, "shell\u{1b}[1m", "rm \u{202e}txt.x")]);
    bench.finished(1, "done", "10%\r100%\u{1b}]0;title\u{7}", 0);
    bench.input(Input::Paste("paste\u{1b}[31md".into()));
    bench.keys("ctrl-o");
    let picture = bench.picture();
    assert!(picture.chars().all(|character| character == '\n' || !character.is_control()), "{picture:?}");
    assert!(!picture.contains('\u{202e}'));
    assert_snapshot!(picture);
}

#[test]
fn a_screen_of_any_size_is_drawn() {
    for columns in 1..50 {
        for rows in 1..12 {
            let mut bench = finished(columns, rows);
            bench.state.author = Ok(Person { name: "日本".into(), email: "x".into() });
            bench.write("日本語 a prompt");
            bench.picture();
            bench.keys("backtab pgup ctrl-o esc");
            bench.picture();
            bench.input(Input::Ended("gone".into()));
            bench.keys("ctrl-u f1 end");
            bench.picture();
        }
    }
}
