//! What of a tool's output the model sees: all of it, or head and tail around a note about the rest.

/// Output up to this many bytes is given whole.
pub const WHOLE: usize = 16 * 1024;

/// Bytes kept at each end of a longer one.
const END: usize = 6 * 1024;

/// Decodes and shortens an output. The second part is whether anything was left out.
#[must_use]
pub fn preview(bytes: &[u8]) -> (String, bool) {
    if bytes.len() <= WHOLE {
        return (String::from_utf8_lossy(bytes).into_owned(), false);
    }
    let head = String::from_utf8_lossy(&bytes[..floor_char(bytes, END)]).into_owned();
    let tail = String::from_utf8_lossy(&bytes[ceil_char(bytes, bytes.len() - END)..]).into_owned();
    let left_out = bytes.len() - 2 * END;
    (format!("{head}\n… {left_out} bytes left out; the whole output is kept with the session …\n{tail}"), true)
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

fn floor_char(bytes: &[u8], mut at: usize) -> usize {
    let lowest = at.saturating_sub(3);
    while at > lowest && is_continuation(bytes[at]) {
        at -= 1;
    }
    at
}

fn ceil_char(bytes: &[u8], mut at: usize) -> usize {
    let highest = (at + 3).min(bytes.len());
    while at < highest && is_continuation(bytes[at]) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_output_is_whole_and_long_output_keeps_both_ends() {
        assert_eq!(preview(b"abc"), ("abc".into(), false));
        let long = format!("BEGIN{}END", "x".repeat(3 * WHOLE));
        let (text, cut) = preview(long.as_bytes());
        assert!(cut && text.starts_with("BEGIN") && text.ends_with("END") && text.contains("bytes left out"));
        assert!(text.len() < WHOLE);
    }

    #[test]
    fn characters_are_not_torn_at_the_cuts() {
        let long = "é".repeat(WHOLE);
        let (text, cut) = preview(format!("x{long}").as_bytes());
        assert!(cut && !text.contains('\u{fffd}'), "a replacement character shows a torn one");
    }
}
