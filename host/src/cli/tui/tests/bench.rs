//! What the tests share: events of a session, keys by name, the picture of a state.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ostler_protocol::event::Person;
use ostler_protocol::{Delta, Event};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use crate::cli::feed::Signal;
use crate::cli::tui::state::{Effect, Input, State};
use crate::cli::tui::update::update;
use crate::cli::tui::view::{Theme, draw};

pub const SESSION: &str = "ses_01jd3kq4v5w6x7y8z9a0b1c2d3";
pub const TURN: &str = "trn_01jd3kq4v5w6x7y8z9a0b1c2d3";
pub const PROMPT: &str = "pro_01jd3kq4v5w6x7y8z9a0b1c2d3";
const DECISION: &str = "dec_01jd3kq4v5w6x7y8z9a0b1c2d3";

/// A screen with what happens to it.
pub struct Bench {
    pub state: State,
    seq: u64,
}

pub fn ada() -> Person {
    Person { name: "Ada Example".into(), email: "ada@example.org".into() }
}

pub fn call(number: u32) -> String {
    format!("call_01jd3kq4v5w6x7y8z9a0b1c2d{number}")
}

/// The key of a name such as `ctrl-x`, `alt-enter`, `é`.
pub fn key(name: &str) -> KeyEvent {
    let mut modifiers = KeyModifiers::NONE;
    let mut rest = name;
    for (prefix, modifier) in [("ctrl-", KeyModifiers::CONTROL), ("alt-", KeyModifiers::ALT)] {
        if let Some(after) = rest.strip_prefix(prefix) {
            modifiers |= modifier;
            rest = after;
        }
    }
    let code = match rest {
        "enter" => KeyCode::Enter,
        "esc" => KeyCode::Esc,
        "tab" => KeyCode::Tab,
        "backtab" => KeyCode::BackTab,
        "backspace" => KeyCode::Backspace,
        "up" => KeyCode::Up,
        "down" => KeyCode::Down,
        "left" => KeyCode::Left,
        "right" => KeyCode::Right,
        "home" => KeyCode::Home,
        "end" => KeyCode::End,
        "pgup" => KeyCode::PageUp,
        "pgdn" => KeyCode::PageDown,
        "f1" => KeyCode::F(1),
        other => {
            let mut characters = other.chars();
            let character = characters.next().unwrap();
            assert_eq!(characters.next(), None, "no such key: {name}");
            KeyCode::Char(character)
        }
    };
    KeyEvent::new(code, modifiers)
}

impl Bench {
    /// A screen of this size to which nothing has happened.
    pub fn new(columns: usize, rows: usize) -> Self {
        Self { state: State::new(SESSION.parse().unwrap(), Ok(ada()), (columns, rows)), seq: 0 }
    }

    /// The same after the session was made.
    pub fn fresh(columns: usize, rows: usize) -> Self {
        let mut bench = Self::new(columns, rows);
        bench.event(json!({"type": "session_created", "session": SESSION, "repository": "demo", "base_branch": "main",
            "base_commit": "1234567890abcdef1234567890abcdef12345678", "branch": "ostler/01jd3kq4v5", "author": ada(),
            "model": "scripted/demo", "version": 1}));
        bench
    }

    /// The same with a turn under way: text, a call that failed, one that runs.
    pub fn working(columns: usize, rows: usize) -> Self {
        let mut bench = Self::fresh(columns, rows);
        bench.prompt("Make the test pass.\nKeep it small.");
        bench.event(json!({"type": "turn_started", "turn": TURN, "prompt": PROMPT}));
        bench.event(json!({"type": "workspace_ready", "took_ms": 312, "restored": false}));
        bench.said(1, "I look at the code first, and at what the tests say about it.", &[(1, "shell", "pytest -q")]);
        bench.started(1, "pytest -q");
        bench.finished(1, "done", "F.\n\u{1b}[31m1 failed\u{1b}[0m, 1 passed", 1);
        bench.said(2, "", &[(2, "shell", "pip install colours"), (3, "shell", "pytest -q tests/test_add.py")]);
        bench.event(json!({"type": "decided", "decision": DECISION, "hook": "tool.execute.before", "call": call(2),
            "verdict": "deny", "reasons": [{"plugin": "policy", "text": "the lock file counts"}], "digest": ""}));
        bench.event(json!({"type": "tool_finished", "call": call(2), "outcome": "denied", "output": "denied",
            "blob": null, "exit_status": null, "took_ms": 0}));
        bench.started(3, "pytest -q tests/test_add.py");
        bench
    }

    pub fn input(&mut self, input: Input) -> Vec<Effect> {
        update(&mut self.state, input)
    }

    /// Presses keys by their names, parted by spaces.
    pub fn keys(&mut self, names: &str) -> Vec<Effect> {
        names.split(' ').flat_map(|name| self.input(Input::Key(key(name)))).collect()
    }

    /// Writes a text key by key.
    pub fn write(&mut self, text: &str) {
        for character in text.chars() {
            let key = KeyEvent::new(KeyCode::Char(character), KeyModifiers::NONE);
            assert_eq!(self.input(Input::Key(key)), []);
        }
    }

    pub fn signal(&mut self, signal: Signal) {
        assert_eq!(self.input(Input::Signal(Box::new(signal))), []);
    }

    pub fn event(&mut self, body: Value) {
        self.seq += 1;
        let mut value = body;
        value["seq"] = self.seq.into();
        value["at_ms"] = 0.into();
        let event: Event = serde_json::from_value(value).unwrap();
        self.signal(Signal::Event { event: Box::new(event), data: String::new() });
    }

    pub fn prompt(&mut self, text: &str) {
        self.event(json!({"type": "prompt_submitted", "prompt": PROMPT, "text": text, "author": ada()}));
    }

    pub fn said(&mut self, step: u32, text: &str, calls: &[(u32, &str, &str)]) {
        let calls: Vec<Value> = calls
            .iter()
            .map(|(number, tool, command)| json!({"call": call(*number), "tool": tool, "arguments": {"command": command}}))
            .collect();
        self.event(json!({"type": "model_responded", "turn": TURN, "step": step, "text": text, "calls": calls,
            "first_token_ms": 3}));
    }

    pub fn started(&mut self, number: u32, command: &str) {
        self.event(json!({"type": "tool_started", "call": call(number), "tool": "shell",
            "arguments": {"command": command}, "decision": DECISION}));
    }

    pub fn finished(&mut self, number: u32, outcome: &str, output: &str, exit: i32) {
        self.event(json!({"type": "tool_finished", "call": call(number), "outcome": outcome, "output": output,
            "blob": null, "exit_status": exit, "took_ms": 1234}));
    }

    pub fn delta(&mut self, value: Value) {
        let delta: Delta = serde_json::from_value(value).unwrap();
        self.signal(Signal::Delta(delta));
    }

    /// The screen as a person sees it, with the place of the cursor.
    pub fn picture(&self) -> String {
        let (columns, rows) = self.state.size;
        let backend = TestBackend::new(u16::try_from(columns).unwrap(), u16::try_from(rows).unwrap());
        let mut terminal = Terminal::new(backend).unwrap();
        terminal.draw(|frame| draw(&self.state, Theme { colour: false }, frame)).unwrap();
        let cursor = terminal.get_cursor_position().unwrap();
        format!("{}cursor {},{}", terminal.backend(), cursor.x, cursor.y)
    }
}
