//! Which key does what, and the sheet that says so.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::editor::Reach;
use super::wrap::wrap;
use crate::cli::words::{Line, Tone, piece};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put a character into the prompt.
    Insert(char),
    /// Send the prompt, or open the selected call.
    Enter,
    /// Move within the prompt.
    Go(Reach),
    /// Delete within the prompt.
    Delete(Reach),
    /// Put back what was deleted last.
    PasteCut,
    /// To the beginning: of the line of the prompt, or of the transcript where there is no prompt.
    Home,
    /// To the end, alike.
    End,
    /// Up by a row, in the prompt as far as it goes.
    Up,
    /// Down by a row, alike.
    Down,
    /// The transcript up by a screen.
    PageUp,
    /// The transcript down by a screen.
    PageDown,
    /// The beginning of the transcript.
    Top,
    /// The end of the transcript.
    Bottom,
    /// Select the next call, or the one before.
    Select {
        /// Whether the next one.
        forward: bool,
    },
    /// Open all calls, or close them.
    ToggleAll,
    /// Ask whether the turn is to be stopped.
    Stop,
    /// Try to reach the host again.
    Retry,
    /// Show the sheet of keys.
    Sheet,
    /// Close what lies over the transcript, the message, the selection.
    Escape,
    /// Leave.
    Leave,
}

/// Keys and what they do, for the sheet on the screen and the help of `attach`.
pub const SHEET: &[(&str, &str)] = &[
    ("Enter", "send the prompt; without one, open or close the selected call"),
    ("Alt-Enter, Ctrl-J", "begin a new line in the prompt"),
    ("Tab, Shift-Tab", "select the next call, the one before"),
    ("Ctrl-O", "open all calls, or close them"),
    ("Up, Down", "scroll by a row; in a prompt of several rows, move in it"),
    ("PgUp, PgDn", "scroll by a screen"),
    ("Home, End", "the beginning, the end; in a prompt, of its line"),
    ("Ctrl-Home, Ctrl-End", "the beginning, the end of the transcript"),
    ("Ctrl-W, Ctrl-U, Ctrl-K", "cut a word, to the line's beginning, to its end"),
    ("Ctrl-Y", "put back what was cut"),
    ("Ctrl-X", "stop the turn, after a question"),
    ("Ctrl-R", "try to reach the host again"),
    ("Esc", "close this, a question, a message, the selection; never the prompt"),
    ("F1, ?", "this sheet; ? only while there is no prompt"),
    ("Ctrl-C", "leave; the agent goes on"),
];

/// The sheet as rows of a screen: what a key does stands beside it, or below it where there is little room.
pub fn sheet_rows(columns: usize) -> Vec<Line> {
    let beside = columns >= 70;
    let longest = SHEET.iter().map(|(keys, _)| keys.len()).max().unwrap_or(0);
    let rows = |(keys, what): &(&str, &str)| {
        if beside {
            let padding = " ".repeat(longest + 2 - keys.len());
            let line = vec![piece(Tone::Strong, *keys), piece(Tone::Plain, padding + what)];
            wrap(&line, columns, longest + 2)
        } else {
            let below = vec![piece(Tone::Plain, format!("  {what}"))];
            [wrap(&vec![piece(Tone::Strong, *keys)], columns, 2), wrap(&below, columns, 2)].concat()
        }
    };
    SHEET.iter().flat_map(rows).collect()
}

/// The sheet as text, for the help of the command.
pub fn sheet() -> String {
    let longest = SHEET.iter().map(|(keys, _)| keys.len()).max().unwrap_or(0);
    let line = |(keys, what): &(&str, &str)| format!("  {keys:<longest$}  {what}\n");
    SHEET.iter().map(line).collect()
}

/// What a key asks for; `empty` says that there is no prompt.
pub fn action(key: KeyEvent, empty: bool) -> Option<Action> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let alt = key.modifiers.contains(KeyModifiers::ALT);
    Some(match key.code {
        KeyCode::Char(character) if control => return with_control(character),
        KeyCode::Char('b') if alt => Action::Go(Reach::WordLeft),
        KeyCode::Char('f') if alt => Action::Go(Reach::WordRight),
        KeyCode::Char('?') if empty => Action::Sheet,
        KeyCode::Char(_) if alt => return None,
        KeyCode::Char(character) => Action::Insert(character),
        KeyCode::Enter if alt || key.modifiers.contains(KeyModifiers::SHIFT) => Action::Insert('\n'),
        KeyCode::Enter => Action::Enter,
        KeyCode::Tab => Action::Select { forward: true },
        KeyCode::BackTab => Action::Select { forward: false },
        KeyCode::Backspace if alt || control => Action::Delete(Reach::WordLeft),
        KeyCode::Backspace => Action::Delete(Reach::Left),
        KeyCode::Delete => Action::Delete(Reach::Right),
        KeyCode::Left if control || alt => Action::Go(Reach::WordLeft),
        KeyCode::Right if control || alt => Action::Go(Reach::WordRight),
        KeyCode::Left => Action::Go(Reach::Left),
        KeyCode::Right => Action::Go(Reach::Right),
        KeyCode::Up => Action::Up,
        KeyCode::Down => Action::Down,
        KeyCode::PageUp => Action::PageUp,
        KeyCode::PageDown => Action::PageDown,
        KeyCode::Home if control => Action::Top,
        KeyCode::End if control => Action::Bottom,
        KeyCode::Home => Action::Home,
        KeyCode::End => Action::End,
        KeyCode::F(1) => Action::Sheet,
        KeyCode::Esc => Action::Escape,
        _ => return None,
    })
}

fn with_control(character: char) -> Option<Action> {
    Some(match character.to_ascii_lowercase() {
        'a' => Action::Go(Reach::LineStart),
        'b' => Action::Go(Reach::Left),
        'c' => Action::Leave,
        'd' => Action::Delete(Reach::Right),
        'e' => Action::Go(Reach::LineEnd),
        'f' => Action::Go(Reach::Right),
        // What some terminals send for the backspace key.
        'h' => Action::Delete(Reach::Left),
        'j' => Action::Insert('\n'),
        'k' => Action::Delete(Reach::LineEnd),
        'o' => Action::ToggleAll,
        'r' => Action::Retry,
        'u' => Action::Delete(Reach::LineStart),
        'w' => Action::Delete(Reach::WordLeft),
        'x' => Action::Stop,
        'y' => Action::PasteCut,
        _ => return None,
    })
}
