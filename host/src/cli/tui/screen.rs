//! The terminal while the screen is up, and its way back to what it was, however the process ends.
//!
//! Owns raw mode, the alternate screen and bracketed paste. All are given back when this is dropped, and before a panic
//! is told. While it is up it writes to stdout in the place of [`crate::cli::output`].

use std::io::{self, Stdout, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::Show;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::state::State;
use super::view::{Theme, draw};

/// Whether the screen is up.
static UP: AtomicBool = AtomicBool::new(false);
static PANICS: Once = Once::new();

/// The screen, which is up as long as this lives.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    theme: Theme,
    _restore: Restore,
}

impl Screen {
    /// Puts the screen up.
    pub fn enter(theme: Theme) -> io::Result<Self> {
        PANICS.call_once(|| {
            let tell = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                tell(panic);
            }));
        });
        // From here on, whatever fails, the terminal is given back.
        let restore = Restore;
        UP.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste)?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        Ok(Self { terminal, theme, _restore: restore })
    }

    /// Columns and rows.
    pub fn size(&self) -> io::Result<(usize, usize)> {
        let size = self.terminal.size()?;
        Ok((size.width.into(), size.height.into()))
    }

    /// Shows the state.
    pub fn draw(&mut self, state: &State) -> io::Result<()> {
        let theme = self.theme;
        self.terminal.draw(|frame| draw(state, theme, frame)).map(drop)
    }
}

struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back, once. Where that fails there is no terminal any more.
fn restore() {
    if UP.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout(), DisableBracketedPaste, LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}
