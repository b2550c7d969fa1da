//! What is wrong with a configuration: every problem with its place, its words and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Most problems that are told; a file that is not meant for us would have hundreds.
pub(super) const MOST: usize = 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read the configuration {path}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something is wrong with what was given.
    #[error("{}", summary(.0))]
    Wrong(Vec<Problem>),
    /// A row of the table of keys does not fit the type that it fills: a defect of ours.
    #[error("the configuration has no value for `{key}`")]
    Table {
        /// Path of the key.
        key: &'static str,
    },
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, without a final period.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Where something was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file.
    File(PathBuf, Position),
    /// In an environment variable.
    Variable(String),
    /// In a flag.
    Flag(&'static str),
    /// Nowhere: it is the default.
    Default,
}

/// A place in a text, both counted from 1; columns are characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Position {
    /// The position of a byte of the text.
    pub(super) fn of(text: &str, offset: usize) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let before = String::from_utf8_lossy(before);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        Self { line, column }
    }
}

impl ConfigError {
    /// An error of these problems, if there are any: in order of their places, and not more than can be read.
    pub(super) fn of(mut problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort_by_key(|problem| match &problem.place {
            Place::File(_, position) => Some(*position),
            _ => None,
        });
        let more = problems.len().saturating_sub(MOST);
        problems.truncate(MOST);
        if let (Some(last), 1..) = (problems.last_mut(), more) {
            last.hint = Some(format!("{more} more problems are not shown; repair these first"));
        }
        Err(Self::Wrong(problems))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path, at) => write!(f, "{}:{}:{}: {}", path.display(), at.line, at.column, self.message),
            Place::Variable(name) => write!(f, "the environment variable {name}: {}", self.message),
            Place::Flag(flag) => write!(f, "{flag}: {}", self.message),
            Place::Default => f.write_str(&self.message),
        }
    }
}

fn summary(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// The name that was probably meant.
pub(crate) fn nearest<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
    let close = |name: &&str| (strsim::damerau_levenshtein(word, name), strsim::jaro_winkler(word, name));
    let (name, (distance, alike)) = names
        .iter()
        .map(|name| (*name, close(name)))
        .min_by(|(_, one), (_, other)| one.0.cmp(&other.0).then(other.1.total_cmp(&one.1)))?;
    // Two slips in a word of six letters or more, or a word that begins the same.
    (distance * 3 <= word.chars().count().max(3) || alike > 0.9).then_some(name)
}

/// A hint with the name that was probably meant, else with every name that there is.
pub(super) fn suggest(word: &str, names: &[&str]) -> String {
    match nearest(word, names) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("there is {}", list(names)),
    }
}

/// Names in words: `a`, `b` and `c`.
pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
        None => "nothing".to_owned(),
    }
}
