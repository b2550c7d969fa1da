//! The log on disk: JSON lines in a folder, in a few files of a limited size.
//!
//! ```text
//!  ostler.log  ──full──►  ostler.1.log ──► ostler.2.log ──► … the oldest is gone
//! ```
//!
//! A log must never stop what it tells about: a line that cannot be written (a full disk) is counted, and the count is the
//! first thing that is written once there is room. Owns the files; does not know what lines mean.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Size of a file, in bytes, from which on the next line begins another one.
pub const FILE_SIZE: u64 = 16 * 1024 * 1024;

/// Files in all, the current one included.
pub const FILES: u32 = 5;

/// Lines that are kept until there is a file.
const EARLY: usize = 256;

/// Path of the log file number `number`, 0 being the current one.
#[must_use]
pub fn path(folder: &Path, number: u32) -> PathBuf {
    match number {
        0 => folder.join("ostler.log"),
        number => folder.join(format!("ostler.{number}.log")),
    }
}

/// Where the lines of this process go. Before [`Lines::open`] it keeps the first ones.
#[derive(Default)]
pub(super) struct Lines(OnceLock<Mutex<Rotating>>, Mutex<Vec<Vec<u8>>>);

impl Lines {
    /// Begins to write into a folder, with what was said before.
    pub(super) fn open(&self, folder: &Path) -> io::Result<()> {
        let mut file = Rotating::open(folder, FILE_SIZE)?;
        for line in lock(&self.1).drain(..) {
            file.line(&line);
        }
        // A second folder is none of the same process; the first one stays.
        let _ = self.0.set(Mutex::new(file));
        Ok(())
    }

    /// Lines that were lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.0.get().map_or(0, |file| lock(file).lost_in_all)
    }

    fn line(&self, line: &[u8]) {
        match self.0.get() {
            Some(file) => lock(file).line(line),
            None => {
                let mut early = lock(&self.1);
                if early.len() < EARLY {
                    early.push(line.to_vec());
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line on its way.
pub(super) struct Line<'a>(&'a Lines);

impl Write for Line<'_> {
    /// Never fails: the subscriber would complain on stderr, which may be on the same full disk.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for &'static Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Standard error that never fails, for the same reason.
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Rotating {
    folder: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    /// Lines lost since the last one that was written.
    lost: u64,
    lost_in_all: u64,
}

impl Rotating {
    fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        let file = append(&path(folder, 0))?;
        let size = file.metadata()?.len();
        Ok(Self { folder: folder.to_owned(), file, size, limit, lost: 0, lost_in_all: 0 })
    }

    fn line(&mut self, line: &[u8]) {
        if self.size >= self.limit
            && let Err(error) = self.rotate()
        {
            // The current file goes on to be written; it grows, which is better than silence.
            let note = notice(&format!("the log could not begin another file: {error}"));
            let _ = self.put(note.as_bytes());
            self.size = 0;
        }
        if self.lost > 0 {
            let note = notice(&format!("{} lines of the log could not be written and are lost", self.lost));
            if self.put(note.as_bytes()).is_ok() {
                self.lost = 0;
            }
        }
        if self.put(line).is_err() {
            self.lost += 1;
            self.lost_in_all += 1;
        }
    }

    /// Writes a whole line, or nothing of it.
    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        match self.file.write_all(line) {
            Ok(()) => {
                self.size += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a line would hide the next one from whoever reads JSON.
                let _ = self.file.set_len(end);
                Err(error)
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..FILES).rev() {
            match fs::rename(path(&self.folder, number - 1), path(&self.folder, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = append(&path(&self.folder, 0))?;
        self.size = 0;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn notice(message: &str) -> String {
    // The clock is that of the lines around it.
    let mut line =
        serde_json::json!({ "level": "WARN", "message": message, "target": "ostler::telemetry" }).to_string();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(folder: &Path, number: u32) -> Vec<String> {
        let text = fs::read_to_string(path(folder, number)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_full_file_makes_room_for_the_next_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = Rotating::open(folder.path(), 10).unwrap();
        for number in 0..8 {
            lines.line(format!("line number {number}\n").as_bytes());
        }
        assert_eq!(read(folder.path(), 0), ["line number 7"]);
        assert_eq!(read(folder.path(), FILES - 1), ["line number 3"]);
        assert!(!path(folder.path(), FILES).exists());
        let mut again = Rotating::open(folder.path(), 1000).unwrap();
        again.line(b"after a restart\n");
        assert_eq!(read(folder.path(), 0), ["line number 7", "after a restart"]);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told_once_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = Rotating::open(folder.path(), 1000).unwrap();
        let real = std::mem::replace(&mut lines.file, OpenOptions::new().append(true).open("/dev/full").unwrap());
        lines.line(b"lost\n");
        lines.line(b"lost too\n");
        lines.file = real;
        lines.line(b"there is room\n");
        let written = read(folder.path(), 0);
        assert!(written[0].contains("2 lines of the log could not be written and are lost"), "{written:?}");
        assert_eq!((written[1].as_str(), lines.lost_in_all), ("there is room", 2));
    }

    #[test]
    fn what_was_said_before_there_was_a_file_is_in_it() {
        static LINES: OnceLock<Lines> = OnceLock::new();
        let lines = LINES.get_or_init(Lines::default);
        lines.make_writer().write_all(b"early\n").unwrap();
        let folder = tempfile::tempdir().unwrap();
        lines.open(folder.path()).unwrap();
        lines.make_writer().write_all(b"late\n").unwrap();
        assert_eq!(read(folder.path(), 0), ["early", "late"]);
    }
}
