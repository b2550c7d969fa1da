//! A small reader of JSON, for what cargo and `ostler --json` write.
//!
//! Numbers are kept as `f64`, which holds every integer up to 2⁵³ exactly: milliseconds since the epoch fit. Nesting
//! is limited.

use std::iter::Peekable;
use std::str::Chars;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any number.
    Number(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// An object, in the order of the text.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The member of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text of a member.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number of a member, where it is an integer.
    pub fn integer(&self, key: &str) -> Option<i64> {
        match self.get(key)? {
            #[expect(clippy::cast_possible_truncation, reason = "checked to be an integer below 2⁵³")]
            Self::Number(number) if number.fract() == 0.0 && number.abs() <= 9e15 => Some(*number as i64),
            _ => None,
        }
    }

    /// The elements of a member that is an array.
    pub fn list(&self, key: &str) -> Option<&[Self]> {
        match self.get(key)? {
            Self::List(elements) => Some(elements),
            _ => None,
        }
    }
}

/// Reads one JSON value that is the whole text.
///
/// # Errors
/// What was expected instead.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { characters: text.chars().peekable(), depth: 0 };
    let value = reader.value()?;
    reader.skip_space();
    match reader.characters.next() {
        None => Ok(value),
        Some(other) => Err(format!("`{other}` after the end of the value")),
    }
}

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 64;

struct Reader<'a> {
    characters: Peekable<Chars<'a>>,
    depth: usize,
}

impl Reader<'_> {
    fn value(&mut self) -> Result<Value, String> {
        self.skip_space();
        match self.characters.peek().copied() {
            Some('{') => self.nested(Self::object),
            Some('[') => self.nested(Self::list),
            Some('"') => self.string().map(Value::Text),
            Some('t') => self.word("true", Value::Bool(true)),
            Some('f') => self.word("false", Value::Bool(false)),
            Some('n') => self.word("null", Value::Null),
            Some(c) if c == '-' || c.is_ascii_digit() => self.number(),
            Some(other) => Err(format!("a value cannot begin with `{other}`")),
            None => Err("the text ends where a value should be".to_owned()),
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Result<Value, String>) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH}"));
        }
        self.characters.next();
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, String> {
        let mut members = Vec::new();
        if self.takes('}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.must_take(':')?;
            members.push((key, self.value()?));
            if self.takes('}') {
                return Ok(Value::Object(members));
            }
            self.must_take(',')?;
        }
    }

    fn list(&mut self) -> Result<Value, String> {
        let mut elements = Vec::new();
        if self.takes(']') {
            return Ok(Value::List(elements));
        }
        loop {
            elements.push(self.value()?);
            if self.takes(']') {
                return Ok(Value::List(elements));
            }
            self.must_take(',')?;
        }
    }

    fn string(&mut self) -> Result<String, String> {
        self.must_take('"')?;
        let mut text = String::new();
        loop {
            match self.characters.next().ok_or("a string without an end")? {
                '"' => return Ok(text),
                '\\' => text.push(self.escaped()?),
                c => text.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, String> {
        Ok(match self.characters.next().ok_or("a string without an end")? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => {
                let first = self.four_digits()?;
                if !(0xd800..0xdc00).contains(&first) {
                    return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                // A character beyond 16 bits is written as two halves.
                if self.characters.next() != Some('\\') || self.characters.next() != Some('u') {
                    return Err("half of a surrogate pair".to_owned());
                }
                let second = self.four_digits()?.wrapping_sub(0xdc00) & 0x3ff;
                char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + second).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            c @ ('"' | '\\' | '/') => c,
            other => return Err(format!("unknown escape `\\{other}`")),
        })
    }

    fn four_digits(&mut self) -> Result<u32, String> {
        (0..4).try_fold(0, |number, _| {
            let digit = self.characters.next().and_then(|c| c.to_digit(16)).ok_or("`\\u` needs four digits")?;
            Ok(number * 16 + digit)
        })
    }

    fn number(&mut self) -> Result<Value, String> {
        let mut text = String::new();
        while let Some(c) = self.characters.next_if(|c| c.is_ascii_digit() || "+-.eE".contains(*c)) {
            text.push(c);
        }
        text.parse().map(Value::Number).map_err(|_| format!("`{text}` is not a number"))
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, String> {
        if word.chars().all(|expected| self.characters.next() == Some(expected)) {
            return Ok(value);
        }
        Err(format!("expected `{word}`"))
    }

    fn takes(&mut self, wanted: char) -> bool {
        self.skip_space();
        self.characters.next_if_eq(&wanted).is_some()
    }

    fn must_take(&mut self, wanted: char) -> Result<(), String> {
        if self.takes(wanted) { Ok(()) } else { Err(format!("expected `{wanted}`")) }
    }

    fn skip_space(&mut self) {
        while self.characters.next_if(|c| matches!(c, ' ' | '\t' | '\r' | '\n')).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_whole() {
        let text = r#"{"seq": 7, "at_ms": 1760000000123, "type":"tool_finished","output":"a\"\n\u00e4\ud83d\ude00",
                      "exit_status":-1,"blob":null,"reasons":[{"text":"x"},[]],"ok":true,"took":1.5e2}"#;
        let value = parse(text).unwrap();
        assert_eq!(value.integer("at_ms"), Some(1_760_000_000_123));
        assert_eq!(value.text("output"), Some("a\"\nä😀"));
        assert_eq!(value.integer("exit_status"), Some(-1));
        assert_eq!(value.integer("took"), Some(150));
        assert_eq!(value.get("blob"), Some(&Value::Null));
        assert_eq!(value.list("reasons").unwrap()[0].text("text"), Some("x"));
        assert_eq!(value.integer("output"), None);
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in
            ["", "{", "{\"a\"}", "[1,]", "tru", "\"abc", "1 2", "{\"a\":1,}", "--1", "\"\\u12\"", &"[".repeat(99)]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
