//! The transcript as the screen holds it: entries with their heights, a bounded number of them. Pure.
//!
//! Owns the entries, and which row of the whole belongs to which. Only the rows that are looked at are made; of the
//! others the height is known. Does not know what part is looked at.

use std::collections::VecDeque;

use ostler_protocol::event::Person;
use ostler_protocol::{CallId, Delta, Event, EventBody, TurnId};

use super::entry::{Call, Entry};
use crate::cli::terminal::clean;
use crate::cli::words::{self, Line, Tone, piece};

/// Bounds on what is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Entries.
    pub entries: usize,
    /// Bytes of their text, roughly.
    pub bytes: usize,
}

impl Default for Bounds {
    /// Days of work, and little enough that all of it can be broken into rows anew when the size of the screen changes.
    fn default() -> Self {
        Self { entries: 5_000, bytes: 4 * 1024 * 1024 }
    }
}

/// Number of an entry, from 0 in the order of their coming; the same however many were given up.
pub type EntryId = u64;

/// The transcript.
#[derive(Debug)]
pub struct Document {
    bounds: Bounds,
    slots: VecDeque<Slot>,
    /// Entries that were given up.
    dropped: u64,
    bytes: usize,
    columns: usize,
    author: Option<Person>,
    all_open: bool,
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    /// Whether an empty row stands before it.
    gap: bool,
    height: usize,
    bytes: usize,
}

/// A row, and whether it belongs to the selected entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What stands in it.
    pub line: Line,
    /// Whether its entry is selected and this is its first row.
    pub selected: bool,
}

impl Document {
    /// An empty transcript.
    pub fn new(bounds: Bounds) -> Self {
        let slots = VecDeque::new();
        Self { bounds, slots, dropped: 0, bytes: 0, columns: 80, author: None, all_open: false }
    }

    /// Fits every entry to the width of the screen.
    pub fn set_columns(&mut self, columns: usize) {
        if columns != self.columns {
            self.columns = columns;
            (0..self.slots.len()).for_each(|index| self.measure(index));
        }
    }

    /// Takes in the next event.
    pub fn event(&mut self, event: &Event) {
        match &event.body {
            EventBody::ModelResponded { turn, step, text, calls, stop, .. } => {
                self.said(*turn, *step, |said| text.clone_into(said));
                if let Some(line) = words::stop(*stop) {
                    self.push(Entry::Words(vec![line]));
                }
                for call in calls {
                    self.push(Entry::Call(Box::new(Call::asked(call.call, &call.tool, Some(call.arguments.clone())))));
                }
            }
            EventBody::Decided { hook, call, verdict, reasons, .. } => {
                let Some(mut line) = words::decision(*verdict, reasons) else { return };
                match call {
                    Some(call) => self.call(*call, |call| call.decisions.push(line)),
                    None => {
                        line.insert(0, piece(Tone::Plain, format!("{}: ", clean(hook))));
                        self.push(Entry::Words(vec![line]));
                    }
                }
            }
            EventBody::ToolStarted { call, tool, arguments, .. } => self.call(*call, |call| {
                tool.clone_into(&mut call.tool);
                call.runs = Some(arguments.clone());
            }),
            EventBody::ToolFinished { call, outcome, output, blob, exit_status, took_ms } => {
                let mut result = words::result(*outcome, *exit_status, *took_ms);
                result.extend(blob.as_ref().map(words::whole_output));
                self.call(*call, |call| call.ended(result, output));
            }
            body => {
                let lines = words::event(body, self.author.as_ref());
                if let EventBody::SessionCreated { author, .. } = body {
                    self.author = Some(author.clone());
                }
                if !lines.is_empty() {
                    self.push(Entry::Words(lines));
                }
            }
        }
    }

    /// Takes in a piece of text on its way.
    pub fn delta(&mut self, delta: &Delta) {
        match delta {
            Delta::ModelText { turn, step, text } => self.said(*turn, *step, |said| said.push_str(text)),
            Delta::ToolOutput { call, text } => self.call(*call, |call| call.wrote(text)),
        }
    }

    /// Opens or closes a call.
    pub fn toggle(&mut self, id: EntryId) {
        let Some(index) = self.index(id) else { return };
        if let Entry::Call(call) = &mut self.slots[index].entry {
            call.open = !call.open;
        }
        self.measure(index);
    }

    /// Opens all calls, or closes all; those that come later too.
    pub fn toggle_all(&mut self) {
        self.all_open = !self.all_open;
        for index in 0..self.slots.len() {
            if let Entry::Call(call) = &mut self.slots[index].entry {
                call.open = self.all_open;
                self.measure(index);
            }
        }
    }

    /// The next call after an entry, or before it; from the end without one.
    pub fn next_call(&self, from: Option<EntryId>, forward: bool) -> Option<EntryId> {
        let is_call = |(slot, id): (&Slot, EntryId)| matches!(slot.entry, Entry::Call(_)).then_some(id);
        let mut calls = self.slots.iter().zip(self.dropped..).filter_map(is_call);
        match (from, forward) {
            (Some(from), true) => calls.find(|id| *id > from),
            (from, _) => calls.take_while(|id| from.is_none_or(|from| *id < from)).last(),
        }
    }

    /// Rows of the whole.
    pub fn height(&self) -> usize {
        self.note_height() + self.slots.iter().map(|slot| slot.height).sum::<usize>()
    }

    /// The first row of an entry, counted from the top; the first of all for one that was given up.
    pub fn row_of(&self, id: EntryId) -> usize {
        let before = usize::try_from(id.saturating_sub(self.dropped)).unwrap_or(usize::MAX);
        self.note_height() + self.slots.iter().take(before).map(|slot| slot.height).sum::<usize>()
    }

    /// The entry that a row belongs to, and the how manieth of its rows it is.
    pub fn at(&self, row: usize) -> (EntryId, usize) {
        let mut left = row.saturating_sub(self.note_height());
        for (slot, id) in self.slots.iter().zip(self.dropped..) {
            if left < slot.height {
                return (id, left);
            }
            left -= slot.height;
        }
        (self.dropped + self.slots.len() as u64, 0)
    }

    /// `count` rows from `top` on.
    pub fn rows(&self, top: usize, count: usize, selected: Option<EntryId>) -> Vec<Row> {
        let mut rows = Vec::with_capacity(count);
        let mut row = 0;
        if self.note_height() > 0 {
            if top == 0 {
                let text = format!("… {} earlier entries are no longer kept here", self.dropped);
                rows.push(Row {
                    line: vec![piece(Tone::Caution, super::wrap::fit(&text, self.columns))],
                    selected: false,
                });
            }
            row = 1;
        }
        for (slot, id) in self.slots.iter().zip(self.dropped..) {
            if rows.len() >= count {
                break;
            }
            let end = row + slot.height;
            if slot.height > 0 && end > top {
                let selected = selected == Some(id);
                let gap = slot.gap.then(Line::new);
                let lines = gap.into_iter().chain(slot.entry.rows(self.columns, selected));
                let skip = top.saturating_sub(row);
                let first = usize::from(slot.gap);
                let row_of = |(number, line)| Row { line, selected: selected && number == first };
                rows.extend(lines.enumerate().skip(skip).map(row_of));
            }
            row = end;
        }
        rows.truncate(count);
        rows
    }

    fn note_height(&self) -> usize {
        usize::from(self.dropped > 0)
    }

    fn index(&self, id: EntryId) -> Option<usize> {
        let index = usize::try_from(id.checked_sub(self.dropped)?).ok()?;
        (index < self.slots.len()).then_some(index)
    }

    /// Changes what the model said to a request.
    fn said(&mut self, turn: TurnId, step: u32, change: impl FnOnce(&mut String)) {
        let here =
            |slot: &Slot| matches!(&slot.entry, Entry::Said { turn: t, step: s, .. } if (*t, *s) == (turn, step));
        match self.slots.iter().rposition(here) {
            Some(index) => {
                if let Entry::Said { text, .. } = &mut self.slots[index].entry {
                    change(text);
                }
                self.measure(index);
            }
            None => {
                let mut text = String::new();
                change(&mut text);
                if !text.trim().is_empty() {
                    self.push(Entry::Said { turn, step, text });
                }
            }
        }
    }

    /// Changes a call; makes one where the asking is no longer known.
    fn call(&mut self, id: CallId, change: impl FnOnce(&mut Call)) {
        let here = |slot: &Slot| matches!(&slot.entry, Entry::Call(call) if call.id == Some(id));
        let index = match self.slots.iter().rposition(here) {
            Some(index) => index,
            None => {
                self.push(Entry::Call(Box::new(Call::asked(id, "tool", None))));
                self.slots.len() - 1
            }
        };
        if let Entry::Call(call) = &mut self.slots[index].entry {
            change(call);
        }
        self.measure(index);
    }

    fn push(&mut self, mut entry: Entry) {
        if let Entry::Call(call) = &mut entry {
            call.open = self.all_open;
        }
        let gap = match (self.slots.back().map(|slot| &slot.entry), &entry) {
            (Some(Entry::Call(_)), Entry::Words(_) | Entry::Said { .. }) => true,
            (Some(Entry::Words(lines)), Entry::Said { .. }) => lines.last().is_some_and(|line| !line.is_empty()),
            _ => false,
        };
        self.slots.push_back(Slot { entry, gap, height: 0, bytes: 0 });
        self.measure(self.slots.len() - 1);
        while self.slots.len() > 1 && (self.slots.len() > self.bounds.entries || self.bytes > self.bounds.bytes) {
            if let Some(slot) = self.slots.pop_front() {
                self.bytes -= slot.bytes;
                self.dropped += 1;
            }
        }
    }

    fn measure(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let rows = slot.entry.rows(self.columns, false).len();
        slot.height = if rows == 0 { 0 } else { rows + usize::from(slot.gap) };
        self.bytes -= slot.bytes;
        slot.bytes = slot.entry.bytes();
        self.bytes += slot.bytes;
    }
}
