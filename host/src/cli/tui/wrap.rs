//! Breaks lines to the width of a screen, by what characters take there. Pure.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use crate::cli::words::{Line, Piece, Tone, piece};

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text cut to `columns`, with `…` where something is missing.
pub fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut fitting = String::new();
    let mut taken = 0;
    for cluster in text.graphemes(true) {
        taken += width(cluster);
        if taken + 1 > columns {
            break;
        }
        fitting.push_str(cluster);
    }
    if columns > 0 {
        fitting.push('…');
    }
    fitting
}

/// The line in rows of at most `columns`, broken between words where it can be; the rows after the first begin with
/// `indent` spaces. There is always at least one row.
pub fn wrap(line: &Line, columns: usize, indent: usize) -> Vec<Line> {
    let columns = columns.max(1);
    let indent = if indent * 2 < columns { indent } else { 0 };
    let clusters: Vec<(Tone, &str, usize)> = line
        .iter()
        .flat_map(|piece| piece.text.graphemes(true).map(|cluster| (piece.tone, cluster, width(cluster))))
        .collect();
    let mut rows = Vec::new();
    let mut start = 0;
    loop {
        let room = if rows.is_empty() { columns } else { columns - indent };
        let end = row_end(&clusters[start..], room) + start;
        rows.push(row(&clusters[start..end], if rows.is_empty() { 0 } else { indent }));
        // The space at which a row was broken is not shown.
        start = if end < clusters.len() && clusters[end].1 == " " { end + 1 } else { end };
        if start >= clusters.len() {
            return rows;
        }
    }
}

/// How many of the clusters go into a row.
fn row_end(clusters: &[(Tone, &str, usize)], room: usize) -> usize {
    let mut taken = 0;
    let mut word = None;
    let mut seen_text = false;
    for (number, (_, cluster, width)) in clusters.iter().enumerate() {
        if *cluster == " " && seen_text {
            word = Some(number);
        }
        seen_text |= *cluster != " ";
        taken += width;
        if taken > room {
            // One cluster goes in even where it is wider than the row: nothing else would ever end.
            return word.unwrap_or(number).max(1);
        }
    }
    clusters.len()
}

fn row(clusters: &[(Tone, &str, usize)], indent: usize) -> Line {
    let mut pieces: Line = Vec::new();
    if indent > 0 {
        pieces.push(piece(Tone::Plain, " ".repeat(indent)));
    }
    for (tone, cluster, _) in clusters {
        match pieces.last_mut() {
            Some(Piece { tone: last, text }) if last == tone => text.push_str(cluster),
            _ => pieces.push(piece(*tone, *cluster)),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, columns: usize, indent: usize) -> Vec<String> {
        let rows = wrap(&vec![piece(Tone::Plain, text)], columns, indent);
        rows.into_iter().map(|row| row.into_iter().map(|piece| piece.text).collect()).collect()
    }

    #[test]
    fn rows_break_between_words_and_within_long_ones() {
        assert_eq!(rows("one two three", 8, 0), ["one two", "three"]);
        assert_eq!(rows("  one two", 7, 2), ["  one", "  two"]);
        assert_eq!(rows("abcdefgh", 3, 0), ["abc", "def", "gh"]);
        assert_eq!(rows("", 3, 0), [""]);
        assert_eq!(rows("日本語", 4, 0), ["日本", "語"]);
        assert_eq!(rows("日本", 1, 0), ["日", "本"]);
        assert_eq!(rows("e\u{301}e\u{301}", 1, 0), ["e\u{301}", "e\u{301}"]);
    }

    #[test]
    fn text_is_cut_by_columns() {
        assert_eq!([fit("日本語", 6), fit("日本語", 5), fit("abc", 0), fit("abc", 1)], ["日本語", "日本…", "", "…"]);
    }
}
