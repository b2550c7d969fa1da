//! Text on a terminal: colour, and what must never reach one.
//!
//! Everything that a model, a tool or a repository wrote passes [`clean`] before a person sees it: escape sequences
//! could rewrite what was shown before, bidirectional marks could show a command in another order than it runs in.

use clap::builder::styling::{AnsiColor, Style};

use super::words::{Line, Tone};

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    /// Whether there is colour at all.
    pub enabled: bool,
}

impl Paint {
    /// Something that went well.
    pub fn good(self, text: &str) -> String {
        self.apply(AnsiColor::Green.on_default(), text)
    }

    /// Something that went wrong.
    pub fn bad(self, text: &str) -> String {
        self.apply(AnsiColor::Red.on_default(), text)
    }

    /// Something to look at.
    pub fn caution(self, text: &str) -> String {
        self.apply(AnsiColor::Yellow.on_default(), text)
    }

    /// Something important.
    pub fn strong(self, text: &str) -> String {
        self.apply(Style::new().bold(), text)
    }

    /// Something beside the matter.
    pub fn faint(self, text: &str) -> String {
        self.apply(Style::new().dimmed(), text)
    }

    /// Whole lines, each piece in its tone.
    pub fn lines(self, lines: &[Line]) -> String {
        let mut text = String::new();
        for line in lines {
            line.iter().for_each(|piece| text.push_str(&self.tone(piece.tone, &piece.text)));
            text.push('\n');
        }
        text
    }

    fn tone(self, tone: Tone, text: &str) -> String {
        match tone {
            Tone::Plain => text.to_owned(),
            Tone::Strong => self.strong(text),
            Tone::Faint => self.faint(text),
            Tone::Good => self.good(text),
            Tone::Bad => self.bad(text),
            Tone::Caution => self.caution(text),
        }
    }

    fn apply(self, style: Style, text: &str) -> String {
        if self.enabled && !text.is_empty() { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// The text with every control character made visible; line breaks stay, a tab becomes four spaces, and of a line that
/// was written over with carriage returns the last state is kept.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            cleaned.push('\n');
        }
        let line = line.trim_end_matches('\r');
        let last = line.rsplit('\r').next().unwrap_or(line);
        last.chars().for_each(|character| push_clean(&mut cleaned, character));
    }
    cleaned
}

fn push_clean(cleaned: &mut String, character: char) {
    match character {
        '\t' => cleaned.push_str("    "),
        '\0'..='\u{1f}' => {
            cleaned.push('^');
            cleaned.push(char::from(character as u8 + 0x40));
        }
        '\u{7f}' => cleaned.push_str("^?"),
        // C1 controls, bidirectional marks, and characters without a shape.
        '\u{80}'..='\u{9f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => cleaned.extend(character.escape_unicode()),
        character => cleaned.push(character),
    }
}

/// The text in one line of at most `width` characters, with `…` where something is missing.
pub fn one_line(text: &str, width: usize) -> String {
    let cleaned = clean(text);
    let mut lines = cleaned.trim().lines();
    let first = lines.next().unwrap_or_default();
    let more = lines.count();
    let mut line = cut(first, width);
    if more > 0 {
        line.push_str(&format!(" … (+{more} lines)"));
    }
    line
}

/// The line, cut to `width` characters.
pub fn cut(line: &str, width: usize) -> String {
    match line.char_indices().nth(width) {
        None => line.to_owned(),
        Some(_) => line.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A time in the unit that suits it.
pub fn duration(milliseconds: u64) -> String {
    match milliseconds {
        0..1_000 => format!("{milliseconds} ms"),
        1_000..60_000 => format!("{:.1} s", milliseconds as f64 / 1000.0),
        _ => format!("{} min {} s", milliseconds / 60_000, milliseconds % 60_000 / 1000),
    }
}

/// A size in the unit that suits it.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// How long ago something was, roughly.
pub fn ago(then_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(clean("\u{1b}[2Jgone\u{1b}]0;title\u{7}"), "^[[2Jgone^[]0;title^G");
        assert_eq!(clean("rm \u{202e}txt.x\u{9b}31m"), "rm \\u{202e}txt.x\\u{9b}31m");
        assert_eq!(clean("10%\r50%\r100%\r\nnext\tcolumn"), "100%\nnext    column");
        assert_eq!(clean("Löwe 日本 🎉"), "Löwe 日本 🎉");
        let all: String = (0..0x3000).filter_map(char::from_u32).collect();
        assert!(clean(&all).chars().all(|character| character == '\n' || !character.is_control()));
    }

    #[test]
    fn long_text_is_shortened_by_characters() {
        assert_eq!(one_line("  äöü\nb\nc\n", 3), "äöü … (+2 lines)");
        assert_eq!(one_line("äöüß", 3), "äö…");
        assert_eq!(one_line("", 3), "");
    }

    #[test]
    fn times_and_sizes_have_a_fitting_unit() {
        assert_eq!([999, 1_000, 45_600_000, 7_000_000_000].map(size), ["999 B", "1.0 kB", "45.6 MB", "7.0 GB"]);
        assert_eq!([0, 999, 1_234, 61_500].map(duration), ["0 ms", "999 ms", "1.2 s", "1 min 1 s"]);
        assert_eq!(
            [5, 125, 7_300, 200_000].map(|s| ago(0, s * 1000)),
            ["5 s ago", "2 min ago", "2 h ago", "2 days ago"]
        );
    }
}
