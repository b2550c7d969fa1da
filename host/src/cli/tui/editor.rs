//! The line in which a prompt is written: text, cursor, what was cut last. Pure.
//!
//! Text is taken as it is and shown cleaned. The cursor stands between clusters of characters, never within one. Does
//! not know keys.

use ostler_protocol::api::MAX_PROMPT;
use unicode_segmentation::UnicodeSegmentation;

use super::wrap::width;
use crate::cli::terminal::clean;

/// A prompt being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Editor {
    text: String,
    /// Where the next character goes, in bytes.
    cursor: usize,
    cut: String,
}

/// How far a movement or a deletion goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One cluster to the left.
    Left,
    /// One cluster to the right.
    Right,
    /// To the beginning of the word.
    WordLeft,
    /// To the end of the word.
    WordRight,
    /// To the beginning of the line.
    LineStart,
    /// To the end of the line.
    LineEnd,
}

/// The text as rows of a screen, and where the cursor is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Cleaned text of each row.
    pub rows: Vec<String>,
    /// Row of the cursor.
    pub row: usize,
    /// Column of the cursor.
    pub column: usize,
}

/// The prompt would be longer than the host takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a prompt is at most {} KiB; what was pasted did not fit and was left out", MAX_PROMPT / 1024)]
pub struct TooLong;

impl Editor {
    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Puts text at the cursor; changes nothing where it would be too long.
    pub fn insert(&mut self, text: &str) -> Result<(), TooLong> {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        if self.text.len() + text.len() > MAX_PROMPT {
            return Err(TooLong);
        }
        self.text.insert_str(self.cursor, &text);
        self.cursor += text.len();
        // What was put in may have grown together with what follows.
        self.cursor = self.boundary_from(self.cursor);
        Ok(())
    }

    /// Takes the whole text out.
    pub fn take(&mut self) -> String {
        self.cursor = 0;
        std::mem::take(&mut self.text)
    }

    /// Puts a text back before what was written since.
    pub fn put_back(&mut self, text: String) {
        let since = self.take();
        self.cut.clear();
        self.text = if since.is_empty() { text } else { format!("{text}\n{since}") };
        self.cursor = self.text.len();
    }

    /// Moves the cursor.
    pub fn go(&mut self, reach: Reach) {
        self.cursor = self.target(reach);
    }

    /// Deletes from the cursor on. What is more than one cluster can be put back with [`Self::paste_cut`].
    pub fn delete(&mut self, reach: Reach) {
        let target = self.target(reach);
        let (start, end) = (target.min(self.cursor), target.max(self.cursor));
        let removed: String = self.text.drain(start..end).collect();
        if !matches!(reach, Reach::Left | Reach::Right) && !removed.is_empty() {
            self.cut = removed;
        }
        self.cursor = start;
    }

    /// Puts back what was cut last.
    pub fn paste_cut(&mut self) -> Result<(), TooLong> {
        self.insert(&self.cut.clone())
    }

    /// Moves the cursor by rows; `false` where there is no such row.
    pub fn go_rows(&mut self, by: isize, columns: usize) -> bool {
        let (starts, row, column) = self.place(columns);
        let Some(target) = row.checked_add_signed(by).filter(|target| *target < starts.len()) else { return false };
        let end = starts.get(target + 1).copied().unwrap_or(self.text.len() + 1);
        let mut position = starts[target];
        let mut reached = 0;
        for cluster in self.text[position..].graphemes(true) {
            if reached >= column || cluster == "\n" || position + cluster.len() >= end {
                break;
            }
            reached += width(&shown(cluster));
            position += cluster.len();
        }
        self.cursor = position;
        true
    }

    /// The text as rows of at most `columns`.
    pub fn rows(&self, columns: usize) -> Rows {
        let (starts, row, column) = self.place(columns);
        let ends = starts.iter().skip(1).copied().chain([self.text.len()]);
        let text = |(start, end): (usize, usize)| {
            self.text[start..end].trim_end_matches('\n').graphemes(true).map(shown).collect()
        };
        let rows = starts.iter().copied().zip(ends).map(text).collect();
        Rows { rows, row, column }
    }

    /// Where each row begins, and row and column of the cursor.
    fn place(&self, columns: usize) -> (Vec<usize>, usize, usize) {
        let columns = columns.max(1);
        let (mut starts, mut column, mut cursor) = (vec![0], 0, (0, 0));
        for (position, cluster) in self.text.grapheme_indices(true) {
            let taken = if cluster == "\n" { 0 } else { width(&shown(cluster)) };
            if column + taken > columns && column > 0 {
                starts.push(position);
                column = 0;
            }
            if position == self.cursor {
                cursor = (starts.len() - 1, column);
            }
            column += taken;
            if cluster == "\n" {
                starts.push(position + 1);
                column = 0;
            }
        }
        if self.cursor == self.text.len() {
            // The cursor stands after the last character, where there is room for it.
            if column >= columns {
                starts.push(self.text.len());
                column = 0;
            }
            cursor = (starts.len() - 1, column);
        }
        (starts, cursor.0, cursor.1)
    }

    fn target(&self, reach: Reach) -> usize {
        let (before, after) = self.text.split_at(self.cursor);
        match reach {
            Reach::Left => self.cursor - before.graphemes(true).next_back().map_or(0, str::len),
            Reach::Right => self.cursor + after.graphemes(true).next().map_or(0, str::len),
            Reach::WordLeft => before.unicode_word_indices().next_back().map_or(0, |(position, _)| position),
            Reach::WordRight => after
                .unicode_word_indices()
                .next()
                .map_or(self.text.len(), |(position, word)| self.cursor + position + word.len()),
            Reach::LineStart => before.rfind('\n').map_or(0, |position| position + 1),
            Reach::LineEnd => after.find('\n').map_or(self.text.len(), |position| self.cursor + position),
        }
    }

    /// The first boundary between clusters at or after `position`.
    fn boundary_from(&self, position: usize) -> usize {
        let mut boundaries = self.text.grapheme_indices(true).map(|(start, _)| start);
        boundaries.find(|start| *start >= position).unwrap_or(self.text.len())
    }
}

/// A cluster as it is shown.
fn shown(cluster: &str) -> String {
    clean(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An editor with the cursor at `|`.
    fn at(text: &str) -> Editor {
        let cursor = text.find('|').unwrap();
        Editor { text: text.replace('|', ""), cursor, cut: String::new() }
    }

    fn mark(editor: &Editor) -> String {
        format!("{}|{}", &editor.text[..editor.cursor], &editor.text[editor.cursor..])
    }

    #[test]
    fn the_cursor_goes_by_what_people_see_as_characters() {
        for (before, reach, after) in [
            ("日本|語", Reach::Left, "日|本語"),
            ("e\u{301}|x", Reach::Left, "|e\u{301}x"),
            ("|👩‍👩‍👧x", Reach::Right, "👩‍👩‍👧|x"),
            ("|", Reach::Left, "|"),
            ("|", Reach::Right, "|"),
            ("one two|", Reach::WordLeft, "one |two"),
            ("one |two", Reach::WordLeft, "|one two"),
            ("one| two", Reach::WordRight, "one two|"),
            ("a\nbc|d", Reach::LineStart, "a\n|bcd"),
            ("a|b\nc", Reach::LineEnd, "ab|\nc"),
        ] {
            let mut editor = at(before);
            editor.go(reach);
            assert_eq!(mark(&editor), after, "{before} {reach:?}");
        }
    }

    #[test]
    fn what_was_deleted_in_one_go_can_be_put_back() {
        let mut editor = at("one two| three");
        editor.delete(Reach::LineStart);
        assert_eq!(mark(&editor), "| three");
        editor.go(Reach::LineEnd);
        editor.paste_cut().unwrap();
        assert_eq!(mark(&editor), " threeone two|");
        editor.delete(Reach::Left);
        assert_eq!(mark(&editor), " threeone tw|");
    }

    #[test]
    fn what_is_pasted_keeps_its_lines_and_has_a_limit() {
        let mut editor = at("a|z");
        editor.insert("1\r\n2\r3").unwrap();
        assert_eq!(mark(&editor), "a1\n2\n3|z");
        let before = editor.clone();
        assert_eq!(editor.insert(&"x".repeat(MAX_PROMPT)), Err(TooLong));
        assert_eq!(editor, before);
    }

    #[test]
    fn a_text_that_comes_back_stands_before_what_was_written_since() {
        let mut editor = at("new|");
        editor.put_back("old".to_owned());
        assert_eq!(mark(&editor), "old\nnew|");
    }

    #[test]
    fn rows_hold_what_the_screen_can_show() {
        let rows = |text: &str, columns| {
            let Rows { rows, row, column } = at(text).rows(columns);
            (rows, row, column)
        };
        assert_eq!(rows("|", 5), (vec![String::new()], 0, 0));
        assert_eq!(rows("abcde|", 5), (vec!["abcde".into(), String::new()], 1, 0));
        assert_eq!(rows("abc|defg", 5), (vec!["abcde".into(), "fg".into()], 0, 3));
        assert_eq!(rows("日本|語", 5), (vec!["日本".into(), "語".into()], 1, 0));
        assert_eq!(rows("a\n|\u{1b}[b", 9), (vec!["a".into(), "^[[b".into()], 1, 0));
        assert_eq!(rows("a\n|", 9), (vec!["a".into(), String::new()], 1, 0));
    }

    #[test]
    fn the_cursor_goes_up_and_down_over_wide_characters() {
        let mut editor = at("日本語\nab|");
        assert!(editor.go_rows(-1, 20));
        assert_eq!(mark(&editor), "日|本語\nab");
        assert!(!editor.go_rows(-1, 20));
        assert!(editor.go_rows(1, 20));
        assert_eq!(mark(&editor), "日本語\nab|");
        let mut editor = at("abcdef\ng|");
        editor.go_rows(-1, 3);
        assert_eq!(mark(&editor), "abcd|ef\ng");
    }
}
