//! Reads a stream of server-sent events, piece by piece as it arrives.
//!
//! Owns the bytes that do not yet make a whole frame, at most [`MAX_FRAME`] of them. Does not know what frames mean.

/// Largest frame, in bytes: several times what the longest prompt becomes in JSON.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;

/// One frame that has data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Its kind; empty for plain ones.
    pub event: String,
    /// Its data.
    pub data: String,
}

/// A frame is larger than [`MAX_FRAME`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame is larger than {MAX_FRAME} bytes")]
pub struct FrameTooLarge;

/// What arrived and was not read yet.
#[derive(Debug, Default)]
pub struct Parser {
    bytes: Vec<u8>,
    read: usize,
    /// How far it is known that no line ends.
    searched: usize,
    frame: Frame,
    has_data: bool,
}

impl Parser {
    /// Takes in what arrived.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), FrameTooLarge> {
        self.bytes.drain(..self.read);
        self.searched = self.searched.saturating_sub(self.read);
        self.read = 0;
        if self.bytes.len() + self.frame.data.len() + bytes.len() > MAX_FRAME {
            return Err(FrameTooLarge);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole frame. Comments are passed over.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            let from = self.searched.max(self.read);
            let Some(end) = self.bytes[from..].iter().position(|byte| *byte == b'\n').map(|end| from + end) else {
                self.searched = self.bytes.len();
                return None;
            };
            let line = String::from_utf8_lossy(&self.bytes[self.read..end]).into_owned();
            self.read = end + 1;
            let line = line.trim_end_matches('\r');
            if line.is_empty() {
                let frame = std::mem::take(&mut self.frame);
                if std::mem::take(&mut self.has_data) {
                    return Some(frame);
                }
                continue;
            }
            self.field(line);
        }
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.frame.event),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            // Sequence numbers are in the data; comments have an empty name.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_wherever_the_stream_is_cut() {
        let stream =
            ": alive\n\nid: 1\ndata: {\"a\":\"ä\"}\n\nevent: delta\r\ndata: x\r\ndata:y\r\n\r\nid: 9\n\ndata\n\n";
        let frame = |event: &str, data: &str| Frame { event: event.into(), data: data.into() };
        let expected = [frame("", "{\"a\":\"ä\"}"), frame("delta", "x\ny"), frame("", "")];
        for size in 1..stream.len() {
            let mut parser = Parser::default();
            let mut frames = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                parser.push(piece).unwrap();
                frames.extend(std::iter::from_fn(|| parser.next_frame()));
            }
            assert_eq!(frames, expected, "cut every {size} bytes");
        }
    }

    #[test]
    fn a_frame_without_end_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; MAX_FRAME / 2];
        parser.push(&piece).unwrap();
        parser.push(&piece).unwrap();
        assert_eq!(parser.push(b"x"), Err(FrameTooLarge));
    }
}
