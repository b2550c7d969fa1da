//! What the screen becomes when something happens, and what is to be done about it. Pure: no clock, no terminal, no host.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ostler_protocol::EventBody;

use super::editor::{Reach, TooLong};
use super::keys::{self, Action};
use super::state::{Connection, Effect, Input, Message, Overlay, Scroll, State, seconds};
use crate::cli::feed::Signal;
use crate::cli::terminal::{clean, one_line};
use crate::cli::words::Tone;

/// Takes in what happened; gives what is to be done.
pub fn update(state: &mut State, input: Input) -> Vec<Effect> {
    match input {
        Input::Key(key) if key.kind == KeyEventKind::Release => Vec::new(),
        Input::Key(key) => pressed(state, key),
        Input::Paste(text) => {
            let inserted = state.editor.insert(&text);
            edited(state, inserted)
        }
        Input::Resize(columns, rows) => {
            state.size = (columns, rows);
            state.document.set_columns(columns);
            Vec::new()
        }
        Input::Signal(signal) => signalled(state, *signal),
        Input::Ended(why) => {
            state.connection = Connection::Ended;
            say(state, Tone::Bad, format!("{}; Ctrl-R tries again, Ctrl-C leaves", clean(&why)))
        }
        Input::Second => {
            if let Connection::Waiting { seconds, .. } = &mut state.connection {
                *seconds = seconds.saturating_sub(1);
            }
            Vec::new()
        }
        Input::Sent(answer) => sent(state, answer),
        Input::Stopped(Ok(())) => say(state, Tone::Plain, "the host stops the turn".to_owned()),
        Input::Stopped(Err(why)) => say(state, Tone::Bad, format!("the turn was not stopped: {}", clean(&why))),
        Input::Terminate => vec![Effect::Leave],
    }
}

fn say(state: &mut State, tone: Tone, text: String) -> Vec<Effect> {
    state.message = Some(Message { tone, text });
    Vec::new()
}

fn signalled(state: &mut State, signal: Signal) -> Vec<Effect> {
    match signal {
        Signal::Connected => {
            // Why the connection was gone is of no interest any more; what went wrong meanwhile is.
            let about_it = state.connection == Connection::Ended || !wrong(state);
            if state.connection != Connection::Live && about_it {
                state.message = None;
            }
            state.connection = Connection::Live;
        }
        Signal::Event { event, .. } => {
            match &event.body {
                EventBody::SessionCreated { model, .. } => state.model = one_line(model, 60),
                EventBody::PromptSubmitted { text, .. } if state.title.is_empty() => state.title = first_line(text),
                _ => {}
            }
            state.progress.note(&event.body);
            grow(state, |state| state.document.event(&event));
        }
        Signal::Delta(delta) => grow(state, |state| state.document.delta(&delta)),
        Signal::CaughtUp => {}
        Signal::Outage(outage) => {
            let (seconds, attempt, limit) = (seconds(outage.pause), outage.attempt, outage.limit);
            state.connection = Connection::Waiting { seconds, attempt, limit };
            if !wrong(state) {
                return say(state, Tone::Caution, clean(&outage.why));
            }
        }
    }
    Vec::new()
}

/// Whether the message says that something went wrong: it stays until it is closed.
fn wrong(state: &State) -> bool {
    state.message.as_ref().is_some_and(|message| message.tone == Tone::Bad)
}

fn first_line(text: &str) -> String {
    clean(text.trim()).lines().next().unwrap_or_default().to_owned()
}

/// Lets the transcript grow; what is looked at stays, and what came below it is marked.
fn grow(state: &mut State, change: impl FnOnce(&mut State)) {
    let before = state.document.height();
    change(state);
    state.unseen |= state.scroll != Scroll::End && state.document.height() != before;
}

fn sent(state: &mut State, answer: Result<(), String>) -> Vec<Effect> {
    let Some(text) = state.sending.take() else { return Vec::new() };
    match answer {
        Ok(()) => {
            state.message = None;
            state.scroll = Scroll::End;
            state.unseen = false;
            Vec::new()
        }
        Err(why) => {
            state.editor.put_back(text);
            say(state, Tone::Bad, format!("not sent: {}", clean(&why)))
        }
    }
}

fn pressed(state: &mut State, key: KeyEvent) -> Vec<Effect> {
    let Some(action) = keys::action(key, state.editor.is_empty()) else { return Vec::new() };
    // What was only said by the way is gone with the next key.
    if state.sending.is_none() && !wrong(state) {
        state.message = None;
    }
    match (state.overlay, action) {
        (_, Action::Leave) => vec![Effect::Leave],
        (Some(Overlay::Stop), _) => answered(state, key),
        (Some(Overlay::Sheet(row)), action) => turn_sheet(state, row, action),
        (None, action) => act(state, action),
    }
}

/// The answer to the question whether the turn is to be stopped. What is neither yes nor no leaves it open.
fn answered(state: &mut State, key: KeyEvent) -> Vec<Effect> {
    // Ctrl-Y is not "y": a turn is stopped by an answer only.
    if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
        return Vec::new();
    }
    match key.code {
        KeyCode::Char('y' | 'Y') => {
            state.overlay = None;
            state.message = Some(Message { tone: Tone::Plain, text: "asking the host to stop the turn…".to_owned() });
            vec![Effect::Stop]
        }
        KeyCode::Char('n' | 'N') | KeyCode::Esc => {
            state.overlay = None;
            Vec::new()
        }
        _ => Vec::new(),
    }
}

fn turn_sheet(state: &mut State, row: usize, action: Action) -> Vec<Effect> {
    let page = state.regions().transcript.saturating_sub(2).max(1);
    let row = match action {
        Action::Up => row.saturating_sub(1),
        Action::Down => row + 1,
        Action::PageUp => row.saturating_sub(page),
        Action::PageDown => row + page,
        Action::Home | Action::Top => 0,
        Action::End | Action::Bottom => usize::MAX,
        _ => {
            state.overlay = None;
            // A character that closes the sheet is not lost.
            return if let Action::Insert(_) = action { act(state, action) } else { Vec::new() };
        }
    };
    state.overlay = Some(Overlay::Sheet(row.min(state.sheet_limit())));
    Vec::new()
}

fn act(state: &mut State, action: Action) -> Vec<Effect> {
    let page = state.regions().transcript.saturating_sub(1).max(1).cast_signed();
    let columns = state.input_columns();
    match action {
        Action::Insert(character) => {
            let inserted = state.editor.insert(character.encode_utf8(&mut [0; 4]));
            return edited(state, inserted);
        }
        Action::PasteCut => {
            let inserted = state.editor.paste_cut();
            return edited(state, inserted);
        }
        Action::Enter => return enter(state),
        Action::Go(reach) => state.editor.go(reach),
        Action::Delete(reach) => state.editor.delete(reach),
        Action::Home if !state.editor.is_empty() => state.editor.go(Reach::LineStart),
        Action::End if !state.editor.is_empty() => state.editor.go(Reach::LineEnd),
        Action::Home | Action::Top => scroll_to(state, 0),
        Action::End | Action::Bottom => scroll_to(state, usize::MAX),
        Action::Up if state.editor.go_rows(-1, columns) => {}
        Action::Down if state.editor.go_rows(1, columns) => {}
        Action::Up => scroll_by(state, -1),
        Action::Down => scroll_by(state, 1),
        Action::PageUp => scroll_by(state, -page),
        Action::PageDown => scroll_by(state, page),
        Action::Select { forward } => select(state, forward),
        Action::ToggleAll => hold(state, |state| state.document.toggle_all()),
        Action::Stop if state.progress.idle() => {
            return say(state, Tone::Plain, "there is nothing to stop: no turn is under way".to_owned());
        }
        Action::Stop => state.overlay = Some(Overlay::Stop),
        Action::Retry => return retry(state),
        Action::Sheet => state.overlay = Some(Overlay::Sheet(0)),
        Action::Escape => escape(state),
        Action::Leave => return vec![Effect::Leave],
    }
    Vec::new()
}

fn edited(state: &mut State, inserted: Result<(), TooLong>) -> Vec<Effect> {
    match inserted {
        Ok(()) => Vec::new(),
        Err(too_long) => say(state, Tone::Bad, too_long.to_string()),
    }
}

/// Sends the prompt; without one, opens or closes the selected call.
fn enter(state: &mut State) -> Vec<Effect> {
    if state.editor.text().trim().is_empty() {
        if let Some(selected) = state.selected {
            hold(state, |state| state.document.toggle(selected));
            show(state, selected);
        }
        return Vec::new();
    }
    if state.sending.is_some() {
        return say(state, Tone::Caution, "the prompt before this one is still on its way".to_owned());
    }
    let author = match &state.author {
        Ok(author) => author.clone(),
        Err(why) => {
            let why = format!("not sent: {}", clean(why));
            return say(state, Tone::Bad, why);
        }
    };
    let text = state.editor.take();
    state.sending = Some(text.clone());
    state.message = Some(Message { tone: Tone::Faint, text: "sending…".to_owned() });
    vec![Effect::Send(text, author)]
}

fn retry(state: &mut State) -> Vec<Effect> {
    if state.connection != Connection::Ended {
        return say(state, Tone::Plain, "the host is being reached without that".to_owned());
    }
    state.connection = Connection::Waiting { seconds: 0, attempt: 1, limit: 1 };
    state.message = None;
    vec![Effect::Retry]
}

/// Closes one thing at a time, the nearest first.
fn escape(state: &mut State) {
    if state.message.take().is_none() {
        state.selected = None;
    }
}

fn scroll_by(state: &mut State, rows: isize) {
    scroll_to(state, state.top().saturating_add_signed(rows));
}

fn scroll_to(state: &mut State, row: usize) {
    if row >= state.last_top() {
        state.scroll = Scroll::End;
        state.unseen = false;
    } else {
        let (entry, row) = state.document.at(row);
        state.scroll = Scroll::At(entry, row);
    }
}

/// Keeps the first row of the screen where it is while heights change.
fn hold(state: &mut State, change: impl FnOnce(&mut State)) {
    let (entry, row) = state.document.at(state.top());
    change(state);
    state.scroll = Scroll::At(entry, row);
    let top = state.document.row_of(entry) + row;
    if top >= state.last_top() {
        scroll_to(state, top);
    }
}

fn select(state: &mut State, forward: bool) {
    if let Some(next) = state.document.next_call(state.selected, forward).or(state.selected) {
        state.selected = Some(next);
        show(state, next);
    }
}

/// Scrolls so that the first row of an entry can be seen.
fn show(state: &mut State, entry: super::document::EntryId) {
    let (row, top, rows) = (state.document.row_of(entry), state.top(), state.regions().transcript);
    if row < top {
        scroll_to(state, row);
    } else if row >= top + rows {
        scroll_to(state, (row + 1).saturating_sub(rows));
    }
}
