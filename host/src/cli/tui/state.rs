//! What the screen shows, and what can happen to it. Types, and questions about them.

use std::time::Duration;

use crossterm::event::KeyEvent;
use ostler_protocol::SessionId;
use ostler_protocol::event::Person;

use super::document::{Bounds, Document, EntryId};
use super::editor::{Editor, Rows};
use super::keys;
use super::wrap::wrap;
use crate::cli::feed::Signal;
use crate::cli::progress::{Ending, Progress};
use crate::cli::words::{Line, Tone, piece};

/// Most rows of the prompt that are shown at once.
const INPUT_ROWS: usize = 6;
/// Most rows of a message.
const MESSAGE_ROWS: usize = 3;
/// Columns before the prompt, for its mark.
pub const MARGIN: usize = 2;

/// Everything that the screen shows.
#[derive(Debug)]
pub struct State {
    /// Which session.
    pub session: SessionId,
    /// Who prompts; else why that is not known, and what to do.
    pub author: Result<Person, String>,
    /// Columns and rows of the screen.
    pub size: (usize, usize),
    /// The transcript.
    pub document: Document,
    /// What part of it is looked at.
    pub scroll: Scroll,
    /// Whether something came below that part.
    pub unseen: bool,
    /// The selected call.
    pub selected: Option<EntryId>,
    /// The next prompt.
    pub editor: Editor,
    /// The prompt that is on its way to the host.
    pub sending: Option<String>,
    /// What lies over the transcript.
    pub overlay: Option<Overlay>,
    /// The last thing that was said beside the transcript.
    pub message: Option<Message>,
    /// How the way to the host is.
    pub connection: Connection,
    /// How far the session is.
    pub progress: Progress,
    /// First line of its first prompt.
    pub title: String,
    /// Its model.
    pub model: String,
}

/// What part of the transcript is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scroll {
    /// Its end, whatever comes.
    End,
    /// From this row of this entry on.
    At(EntryId, usize),
}

/// What lies over the transcript and takes the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// The sheet of keys, from this row on.
    Sheet(usize),
    /// The question whether the turn is to be stopped.
    Stop,
}

/// Something said beside the transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// How it is meant.
    pub tone: Tone,
    /// What.
    pub text: String,
}

/// How the way to the host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Events come as they happen.
    Live,
    /// It dropped and is tried again.
    Waiting {
        /// Seconds until then.
        seconds: u64,
        /// The how manieth try that will be.
        attempt: u32,
        /// How many there are.
        limit: u32,
    },
    /// It will not be tried again unless the person says so.
    Ended,
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum Input {
    /// A key was pressed.
    Key(KeyEvent),
    /// Text was pasted.
    Paste(String),
    /// The screen has this size now.
    Resize(usize, usize),
    /// Something came from the host.
    Signal(Box<Signal>),
    /// Nothing more will come.
    Ended(String),
    /// A second passed.
    Second,
    /// The host took the prompt, or why not.
    Sent(Result<(), String>),
    /// The host stopped the turn, or why not.
    Stopped(Result<(), String>),
    /// The process was told to end.
    Terminate,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Give the host this prompt.
    Send(String, Person),
    /// Ask the host to stop the turn.
    Stop,
    /// Try to reach the host again.
    Retry,
    /// Leave the screen.
    Leave,
}

/// Rows of each part of the screen, from the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regions {
    /// The transcript.
    pub transcript: usize,
    /// The message, none where there is none.
    pub message: usize,
    /// The prompt.
    pub input: usize,
}

impl State {
    /// The screen before anything came.
    pub fn new(session: SessionId, author: Result<Person, String>, size: (usize, usize)) -> Self {
        let mut state = Self {
            session,
            author,
            size,
            document: Document::new(Bounds::default()),
            scroll: Scroll::End,
            unseen: false,
            selected: None,
            editor: Editor::default(),
            sending: None,
            overlay: None,
            message: None,
            connection: Connection::Live,
            progress: Progress::default(),
            title: String::new(),
            model: String::new(),
        };
        state.document.set_columns(size.0);
        state
    }

    /// The prompt as rows of the screen.
    pub fn input_rows(&self) -> Rows {
        self.editor.rows(self.input_columns())
    }

    /// Columns for the prompt.
    pub fn input_columns(&self) -> usize {
        self.size.0.saturating_sub(MARGIN).max(1)
    }

    /// How the rows of the screen are shared out: one for the status, at least one for the prompt.
    pub fn regions(&self) -> Regions {
        let rows = self.size.1;
        let input = self.input_rows().rows.len().min(INPUT_ROWS).min((rows / 3).max(1));
        let message = self.notice_rows().len().min(rows.saturating_sub(input + 2));
        Regions { transcript: rows.saturating_sub(1 + message + input), message, input }
    }

    /// What stands above the status: a question, else the last message.
    pub fn notice(&self) -> Option<Message> {
        match self.overlay {
            Some(Overlay::Stop) => {
                Some(Message { tone: Tone::Caution, text: "Stop the turn? y: stop it, n: let it go on".to_owned() })
            }
            _ => self.message.clone(),
        }
    }

    /// The same in rows of the screen.
    pub fn notice_rows(&self) -> Vec<Line> {
        let Some(Message { tone, text }) = self.notice() else { return Vec::new() };
        let mut rows: Vec<Line> = text
            .lines()
            .flat_map(|line| wrap(&vec![piece(tone, line)], self.size.0, 2))
            .take(MESSAGE_ROWS + 1)
            .collect();
        if rows.len() > MESSAGE_ROWS {
            rows.truncate(MESSAGE_ROWS);
            rows[MESSAGE_ROWS - 1] = vec![piece(tone, "  …")];
        }
        rows
    }

    /// The row at which the transcript begins on the screen.
    pub fn top(&self) -> usize {
        match self.scroll {
            Scroll::End => self.last_top(),
            Scroll::At(entry, row) => (self.document.row_of(entry) + row).min(self.last_top()),
        }
    }

    /// The row at which it begins when its end is looked at.
    pub fn last_top(&self) -> usize {
        self.document.height().saturating_sub(self.regions().transcript)
    }

    /// Rows of the sheet of keys that can lie above the first one that is shown.
    pub fn sheet_limit(&self) -> usize {
        keys::sheet_rows(self.size.0).len().saturating_sub(self.regions().transcript.saturating_sub(1))
    }

    /// What the session does, in a word.
    pub fn doing(&self) -> &'static str {
        match self.progress.last() {
            _ if self.progress.publishing() => "publishing",
            _ if !self.progress.idle() => "working",
            Some(Ending::Failed { .. } | Ending::Interrupted | Ending::Halted { .. }) => "failed",
            Some(Ending::NotPublished { .. }) => "not published",
            Some(Ending::Stopped) => "stopped",
            Some(Ending::Published { .. } | Ending::NothingToPublish) => "done",
            None => "idle",
        }
    }

    /// What was written and is not with the host.
    pub fn unsent(&self) -> Option<String> {
        let mut editor = self.editor.clone();
        if let Some(sending) = &self.sending {
            editor.put_back(sending.clone());
        }
        Some(editor.take()).filter(|text| !text.trim().is_empty())
    }
}

/// Whole seconds until a pause has passed, at least one.
pub fn seconds(pause: Duration) -> u64 {
    u64::try_from(pause.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}
