//! What becomes of a key or an event.

use ostler_protocol::event::{Person, TurnOutcome};
use serde_json::json;

use super::bench::*;
use crate::cli::feed::Signal;
use crate::cli::tui::document::{Bounds, Document};
use crate::cli::tui::state::{Connection, Effect, Input, Overlay, Scroll};
use crate::cli::words::Tone;

/// A screen with more in it than it can show.
fn long() -> Bench {
    let mut bench = Bench::working(40, 12);
    for number in 1..=30 {
        bench.event(json!({"type": "notice", "text": format!("number {number}")}));
    }
    bench
}

#[test]
fn each_key_does_what_the_sheet_says() {
    let send = |text: &str| vec![Effect::Send(text.into(), ada())];
    for (text, keys, left, effects) in [
        ("go", "enter", "", send("go")),
        ("  go \n", "enter", "", send("  go \n")),
        ("  ", "enter", "  ", vec![]),
        ("", "enter", "", vec![]),
        ("go", "alt-enter o n", "go\non", vec![]),
        ("go", "ctrl-j enter", "", send("go\n")),
        ("go", "esc esc esc", "go", vec![]),
        ("why", "?", "why?", vec![]),
        ("a b", "ctrl-w", "a ", vec![]),
        ("a b", "ctrl-u ctrl-y ctrl-y", "a ba b", vec![]),
        ("日本", "left backspace", "本", vec![]),
        ("go", "ctrl-c", "go", vec![Effect::Leave]),
        ("go", "f1 ctrl-c", "go", vec![Effect::Leave]),
        ("go", "ctrl-x esc", "go", vec![]),
        ("go", "ctrl-x q n", "go", vec![]),
        ("go", "ctrl-x y", "go", vec![Effect::Stop]),
        ("go", "ctrl-x ctrl-y", "go", vec![]),
        ("go", "ctrl-x ctrl-c", "go", vec![Effect::Leave]),
        ("go", "ctrl-r", "go", vec![]),
        ("go", "f1 x", "gox", vec![]),
    ] {
        let mut bench = Bench::working(80, 24);
        bench.write(text);
        let done = bench.keys(keys);
        assert_eq!((bench.state.editor.text(), done), (left, effects), "{text:?} {keys}");
    }
}

#[test]
fn a_stop_is_asked_for_only_where_there_is_something_to_stop() {
    let mut bench = Bench::fresh(80, 24);
    assert_eq!(bench.keys("ctrl-x y"), []);
    assert_eq!(bench.state.overlay, None);
    let mut bench = Bench::working(80, 24);
    bench.keys("ctrl-x");
    assert_eq!(bench.state.overlay, Some(Overlay::Stop));
    bench.keys("y");
    bench.input(Input::Stopped(Err("could not".into())));
    assert_eq!(bench.state.message.as_ref().unwrap().text, "the turn was not stopped: could not");
}

#[test]
fn a_prompt_is_never_lost() {
    let mut bench = Bench::fresh(80, 24);
    bench.write("first");
    bench.keys("enter");
    bench.write("second");
    assert_eq!(bench.keys("enter"), [], "one at a time");
    assert_eq!(bench.state.unsent().as_deref(), Some("first\nsecond"));
    bench.input(Input::Sent(Err("no".into())));
    assert_eq!(bench.state.editor.text(), "first\nsecond");
    bench.keys("esc esc");
    assert_eq!(bench.keys("enter"), [Effect::Send("first\nsecond".into(), ada())]);
    bench.write("third");
    bench.input(Input::Sent(Ok(())));
    assert_eq!((bench.state.editor.text(), bench.state.message.clone()), ("third", None));
    assert_eq!(bench.state.unsent().as_deref(), Some("third"));
    bench.keys("ctrl-u");
    assert_eq!(bench.state.unsent(), None);
}

#[test]
fn without_an_author_nothing_is_sent_and_the_hint_is_shown() {
    let mut bench = Bench::fresh(80, 24);
    bench.state.author = Err("git does not know your name; git config …".into());
    bench.write("go");
    assert_eq!(bench.keys("enter"), []);
    assert_eq!(bench.state.editor.text(), "go");
    assert_eq!(bench.state.message.as_ref().unwrap().text, "not sent: git does not know your name; git config …");
}

#[test]
fn the_end_is_followed_only_by_those_who_look_at_it() {
    let mut bench = long();
    let end = bench.state.top();
    bench.event(json!({"type": "notice", "text": "more"}));
    assert_eq!((bench.state.scroll, bench.state.top(), bench.state.unseen), (Scroll::End, end + 1, false));
    bench.keys("pgup up");
    let (scroll, top) = (bench.state.scroll, bench.state.top());
    assert!(scroll != Scroll::End && top < end);
    bench.event(json!({"type": "notice", "text": "yet more"}));
    assert_eq!((bench.state.scroll, bench.state.top(), bench.state.unseen), (scroll, top, true));
    bench.keys("pgdn pgdn pgdn");
    assert_eq!((bench.state.scroll, bench.state.unseen), (Scroll::End, false));
    bench.keys("home");
    assert_eq!(bench.state.top(), 0);
    bench.keys("end");
    assert_eq!(bench.state.scroll, Scroll::End);
}

#[test]
fn what_is_looked_at_stays_when_the_size_changes() {
    let mut bench = long();
    bench.keys("home pgdn pgdn");
    let looked_at = bench.state.document.at(bench.state.top());
    bench.input(Input::Resize(20, 8));
    assert_eq!(bench.state.document.at(bench.state.top()).0, looked_at.0);
    bench.input(Input::Resize(40, 12));
    assert_eq!(bench.state.document.at(bench.state.top()), looked_at);
}

#[test]
fn a_call_is_opened_where_it_stands() {
    let mut bench = long();
    bench.keys("backtab backtab backtab");
    let selected = bench.state.selected.unwrap();
    let row = |bench: &Bench| bench.state.document.row_of(selected) - bench.state.top();
    let before = (row(&bench), bench.state.document.height());
    bench.keys("enter");
    assert_eq!(row(&bench), before.0);
    assert!(bench.state.document.height() > before.1);
    bench.keys("enter");
    assert_eq!((row(&bench), bench.state.document.height()), before);
    bench.keys("tab tab tab tab");
    assert!(bench.state.selected.unwrap() > selected);
    bench.keys("esc");
    assert_eq!(bench.state.selected, None);
}

#[test]
fn a_key_of_which_only_the_release_is_told_does_nothing() {
    let mut bench = Bench::fresh(80, 24);
    let mut released = key("a");
    released.kind = crossterm::event::KeyEventKind::Release;
    bench.input(Input::Key(released));
    assert!(bench.state.editor.is_empty());
}

#[test]
fn a_paste_that_is_too_long_changes_nothing() {
    let mut bench = Bench::fresh(80, 24);
    bench.write("go");
    bench.input(Input::Paste("x".repeat(300_000)));
    assert_eq!(bench.state.editor.text(), "go");
    assert_eq!(bench.state.message.as_ref().unwrap().tone, Tone::Bad);
}

#[test]
fn what_is_given_up_is_tried_again_only_when_asked() {
    let mut bench = Bench::working(80, 24);
    bench.input(Input::Ended("gone".into()));
    assert_eq!(bench.state.connection, Connection::Ended);
    assert_eq!(bench.keys("ctrl-r"), [Effect::Retry]);
    bench.signal(Signal::Connected);
    assert_eq!((bench.state.connection.clone(), bench.state.message.clone()), (Connection::Live, None));
}

#[test]
fn the_status_follows_the_session() {
    let mut bench = Bench::fresh(80, 24);
    let mut seen = vec![bench.state.doing()];
    bench.prompt("first line\nsecond");
    seen.push(bench.state.doing());
    bench.event(json!({"type": "turn_started", "turn": TURN, "prompt": PROMPT}));
    bench.event(json!({"type": "turn_finished", "turn": TURN, "outcome": TurnOutcome::Done}));
    seen.push(bench.state.doing());
    bench.event(json!({"type": "publish_skipped", "reason": "no change"}));
    seen.push(bench.state.doing());
    assert_eq!(seen, ["idle", "working", "publishing", "done"]);
    assert_eq!((bench.state.title.as_str(), bench.state.model.as_str()), ("first line", "scripted/demo"));
}

#[test]
fn text_that_arrived_is_replaced_by_the_whole_of_it() {
    let mut bench = Bench::working(80, 24);
    bench.delta(json!({"type": "model_text", "turn": TURN, "step": 3, "text": "middle"}));
    assert!(bench.picture().contains("middle"));
    bench.said(3, "start, middle, end", &[]);
    let picture = bench.picture();
    assert_eq!(picture.matches("middle").count(), 1, "{picture}");
}

#[test]
fn a_session_without_end_takes_a_bounded_room() {
    let mut document = Document::new(Bounds { entries: 10, bytes: 100_000 });
    document.set_columns(40);
    let event = |seq: u64, text: &str| {
        let body = json!({"seq": seq, "at_ms": 0, "type": "notice", "text": text});
        serde_json::from_value(body).unwrap()
    };
    (1..=25).for_each(|seq| document.event(&event(seq, &format!("number {seq}"))));
    let text = |document: &Document| -> Vec<String> {
        let rows = document.rows(0, document.height(), None);
        rows.into_iter().map(|row| row.line.into_iter().map(|piece| piece.text).collect()).collect()
    };
    let shown = text(&document);
    assert_eq!(shown.len(), 11);
    assert_eq!(shown[0], "… 15 earlier entries are no longer kept…");
    assert_eq!((shown[1].as_str(), shown[10].as_str()), ("note: number 16", "note: number 25"));
    document.event(&event(26, &"x".repeat(99_950)));
    assert_eq!(document.at(1).0, 25, "by size as well");
}

#[test]
fn rows_are_the_same_whether_asked_for_one_by_one_or_all_at_once() {
    let mut bench = long();
    bench.keys("ctrl-o");
    let document = &bench.state.document;
    let all = document.rows(0, 10_000, None);
    assert_eq!(all.len(), document.height());
    for (number, row) in all.iter().enumerate() {
        assert_eq!(document.rows(number, 1, None).as_slice(), std::slice::from_ref(row), "row {number}");
    }
}

#[test]
fn a_prompt_of_another_person_names_them() {
    let mut bench = Bench::fresh(80, 24);
    let bob = Person { name: "Bob".into(), email: "b@x".into() };
    bench.event(json!({"type": "prompt_submitted", "prompt": PROMPT, "text": "Again", "author": bob}));
    assert!(bench.picture().contains("> Again  (Bob <b@x>)"), "{}", bench.picture());
}
