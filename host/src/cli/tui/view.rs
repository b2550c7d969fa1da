//! The state as a picture. Pure but for the buffer that it draws into.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Styled, Span};
use ratatui::widgets::Widget;

use super::keys;
use super::state::{Connection, MARGIN, Overlay, Scroll, State};
use super::wrap::{fit, width};
use crate::cli::words::{Line, Tone, piece};

/// Columns from which on the status has room for the whole id of the session.
const WIDE: usize = 60;

/// Whether there is colour. Without it, weight and the words themselves remain.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    /// Whether there is.
    pub colour: bool,
}

impl Theme {
    fn style(self, tone: Tone) -> Style {
        let colour = |colour: Color| if self.colour { Style::new().fg(colour) } else { Style::new() };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
            Tone::Faint => Style::new().add_modifier(Modifier::DIM),
            Tone::Good => colour(Color::Green),
            Tone::Bad => colour(Color::Red),
            Tone::Caution => colour(Color::Yellow),
        }
    }

    fn line(self, line: &Line) -> Styled<'_> {
        let spans = line.iter().map(|piece| Span::styled(piece.text.as_str(), self.style(piece.tone)));
        Styled::from_iter(spans)
    }
}

/// Draws the whole screen.
pub fn draw(state: &State, theme: Theme, frame: &mut Frame<'_>) {
    let area = frame.area();
    let regions = state.regions();
    let buffer = frame.buffer_mut();
    let mut row = 0;
    let mut next = |rows: usize| {
        let rows = u16::try_from(rows).unwrap_or(u16::MAX);
        let part = Rect::new(area.x, area.y + row, area.width, rows).intersection(area);
        row = row.saturating_add(rows);
        part
    };
    let (transcript, message, status, input) =
        (next(regions.transcript), next(regions.message), next(1), next(regions.input));
    match state.overlay {
        Some(Overlay::Sheet(first)) => sheet(state, first, theme, transcript, buffer),
        _ => draw_transcript(state, theme, transcript, buffer),
    }
    for (number, line) in state.notice_rows().iter().take(regions.message).enumerate() {
        put(line, theme, row_of(message, number), buffer);
    }
    draw_status(state, status, buffer);
    let cursor = draw_input(state, theme, input, buffer);
    frame.set_cursor_position(cursor);
}

fn put(line: &Line, theme: Theme, area: Rect, buffer: &mut Buffer) {
    theme.line(line).render(area, buffer);
}

/// A row of an area, counted from its top.
fn row_of(area: Rect, row: usize) -> Rect {
    let row = u16::try_from(row).unwrap_or(u16::MAX);
    Rect::new(area.x, area.y.saturating_add(row), area.width, 1).intersection(area)
}

fn draw_transcript(state: &State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let top = state.top();
    let rows = state.document.rows(top, usize::from(area.height), state.selected);
    for (number, row) in rows.iter().enumerate() {
        let place = row_of(area, number);
        put(&row.line, theme, place, buffer);
        if row.selected {
            buffer.set_style(place, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
}

fn sheet(state: &State, first: usize, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let columns = usize::from(area.width);
    let title = format!("Keys ({})", state.session);
    put(&vec![piece(Tone::Strong, fit(&title, columns))], theme, row_of(area, 0), buffer);
    for (number, line) in keys::sheet_rows(columns).iter().skip(first).enumerate() {
        put(line, theme, row_of(area, number + 1), buffer);
    }
}

fn draw_status(state: &State, area: Rect, buffer: &mut Buffer) {
    let columns = usize::from(area.width);
    let mark = below(state);
    let room = columns.saturating_sub(width(mark) + 2);
    let text = fit(&status(state, room), room);
    let text = format!(" {text}{:1$}{mark} ", "", room - width(&text));
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    buffer.set_style(area, reversed);
    Span::styled(text, reversed).render(area, buffer);
}

/// That there is more below what is looked at, and whether it came since.
fn below(state: &State) -> &'static str {
    match state.overlay {
        Some(Overlay::Sheet(row)) if row < state.sheet_limit() => " ↓",
        Some(Overlay::Sheet(_)) => "",
        _ if state.scroll == Scroll::End => "",
        _ if state.unseen => " ↓ new",
        _ => " ↓",
    }
}

/// How the connection is and what the session does; then as much of the rest as there is room for.
fn status(state: &State, columns: usize) -> String {
    let connection = match &state.connection {
        Connection::Live => "live".to_owned(),
        Connection::Waiting { seconds: 0, .. } => "reconnecting…".to_owned(),
        Connection::Waiting { seconds, attempt, limit } => {
            format!("reconnecting in {seconds} s ({attempt}/{limit})")
        }
        Connection::Ended => "ended".to_owned(),
    };
    let mut text = format!("{connection} · {}", state.doing());
    let session = state.session.to_string();
    let rest = if columns < WIDE { [&state.title, &state.model] } else { [&session, &state.model] };
    let title = (columns >= WIDE).then_some(&state.title);
    for part in rest.into_iter().chain(title).filter(|part| !part.is_empty()) {
        let room = columns.saturating_sub(width(&text) + 3);
        let whole = width(part) <= room;
        if whole || (part == &state.title && room >= 8) {
            text.push_str(&format!(" · {}", fit(part, room)));
        }
    }
    text
}

/// Draws the prompt; gives where the cursor is.
fn draw_input(state: &State, theme: Theme, area: Rect, buffer: &mut Buffer) -> Position {
    let input = state.input_rows();
    let height = usize::from(area.height).max(1);
    let first = (input.row + 1).saturating_sub(height);
    let mark = |row: usize| if row == 0 { "> " } else { "  " };
    if state.editor.is_empty() {
        let hint = fit("the next prompt; ? shows the keys", usize::from(area.width).saturating_sub(MARGIN));
        let line = vec![piece(Tone::Strong, mark(0)), piece(Tone::Faint, hint)];
        put(&line, theme, row_of(area, 0), buffer);
    } else {
        for (number, text) in input.rows.iter().enumerate().skip(first).take(height) {
            let line = vec![piece(Tone::Strong, mark(number)), piece(Tone::Plain, text.as_str())];
            put(&line, theme, row_of(area, number - first), buffer);
        }
    }
    let column = u16::try_from(MARGIN + input.column).unwrap_or(u16::MAX);
    let row = u16::try_from(input.row - first).unwrap_or(u16::MAX);
    let column = area.x.saturating_add(column).min(area.right().saturating_sub(1));
    Position::new(column, area.y.saturating_add(row).min(area.bottom().saturating_sub(1)))
}
