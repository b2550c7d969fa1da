//! JSON without a library: values and how they are written.

/// A value.
#[derive(Clone, Debug)]
pub enum Json {
    Nothing,
    Number(i64),
    Text(String),
    List(Vec<Json>),
    /// In the order of writing.
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }

    pub fn object<K: Into<String>>(fields: impl IntoIterator<Item = (K, Json)>) -> Self {
        Self::Object(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

impl std::fmt::Display for Json {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => write!(out, "null"),
            Self::Number(number) => write!(out, "{number}"),
            Self::Text(text) => quoted(out, text),
            Self::List(values) => {
                write!(out, "[")?;
                for (number, value) in values.iter().enumerate() {
                    write!(out, "{}{value}", if number == 0 { "" } else { "," })?;
                }
                write!(out, "]")
            }
            Self::Object(fields) => {
                write!(out, "{{")?;
                for (number, (name, value)) in fields.iter().enumerate() {
                    write!(out, "{}", if number == 0 { "" } else { "," })?;
                    quoted(out, name)?;
                    write!(out, ":{value}")?;
                }
                write!(out, "}}")
            }
        }
    }
}

fn quoted(out: &mut std::fmt::Formatter<'_>, text: &str) -> std::fmt::Result {
    write!(out, "\"")?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(out, "\\{character}")?,
            control if control < ' ' => write!(out, "\\u{:04x}", control as u32)?,
            other => write!(out, "{other}")?,
        }
    }
    write!(out, "\"")
}
