//! A value of the configuration after it was judged: what its kind says, and nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{ByteSize, Cpus, TimeSpan};

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text: a name, an address, a path.
    Text(String),
    /// A whole number.
    Number(u32),
    /// Texts in order.
    List(Vec<String>),
    /// An address with a port.
    Address(SocketAddr),
    /// A size.
    Size(ByteSize),
    /// Processor time.
    Cores(Cpus),
    /// A length of time.
    Time(TimeSpan),
}

impl Value {
    /// One list of lists.
    #[must_use]
    pub fn joined(lists: Vec<Self>) -> Self {
        let texts = lists.into_iter().filter_map(|list| Vec::<String>::try_from(list).ok());
        Self::List(texts.flatten().collect())
    }

    /// The value as the file would hold it.
    #[must_use]
    pub fn to_toml(&self) -> toml::Value {
        match self {
            Self::Text(text) => toml::Value::String(text.clone()),
            Self::Number(number) => toml::Value::Integer((*number).into()),
            Self::List(texts) => toml::Value::Array(texts.iter().cloned().map(toml::Value::String).collect()),
            Self::Address(address) => toml::Value::String(address.to_string()),
            Self::Size(size) => toml::Value::String(size.to_string()),
            Self::Cores(cores) => toml::Value::Float(f64::from(cores.millis) / 1000.0),
            Self::Time(time) => toml::Value::String(time.to_string()),
        }
    }
}

macro_rules! typed {
    ($($variant:ident => $type:ty, $form:expr;)*) => {
        $(impl TryFrom<Value> for $type {
            type Error = Value;

            fn try_from(value: Value) -> Result<Self, Value> {
                match value {
                    Value::$variant(inner) => Ok($form(inner)),
                    other => Err(other),
                }
            }
        })*
    };
}

typed! {
    Text => String, |text| text;
    Text => PathBuf, PathBuf::from;
    Number => u32, |number| number;
    List => Vec<String>, |texts| texts;
    List => Vec<PathBuf>, |texts: Vec<String>| texts.into_iter().map(PathBuf::from).collect();
    Address => SocketAddr, |address| address;
    Size => ByteSize, |size| size;
    Cores => Cpus, |cores| cores;
    Time => TimeSpan, |time| time;
}
