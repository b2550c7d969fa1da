//! Hosts and patterns of hosts, each in one canonical form.
//!
//! A name is compared in lower case, in ASCII (IDNA where it was written otherwise) and without a final dot. What a C
//! library would read as an address (`0x7f.1`, `2130706433`) is no name.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The domain of the names that exist only behind the door. No rule is about them.
const OURS: &str = "ostler.internal";

/// Why a text is no host or no pattern of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a name and not an address.
    #[error("not a host name such as `example.org`")]
    Host,
    /// `*` stands where it may not.
    #[error("`*` may stand only at the beginning, before a domain of two labels or more, such as `*.example.org`")]
    Star,
    /// A name behind the door.
    #[error("names below `ostler.internal` exist only behind the door; they need no rule")]
    Ours,
}

/// A host name in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

impl HostName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // A name has 253 characters of at most four bytes; what is longer is not worth the work of looking at it.
        if text.len() > 1024 {
            return Err(NameError::Host);
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        let name = idna::domain_to_ascii(text).map_err(|_| NameError::Host)?;
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(letter);
        let last = name.rsplit('.').next().unwrap_or_default();
        let fits = name.len() <= 253 && name.split('.').all(label) && !is_number(last);
        if fits { Ok(Self(name)) } else { Err(NameError::Host) }
    }
}

/// Whether a last label makes the C library read the whole as an address.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || label.bytes().all(|byte| byte.is_ascii_digit())
}

/// A name, or an address that was written instead of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A name.
    Name(HostName),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for Host {
    type Err = NameError;

    /// Reads a host as it stands in a URL: an IPv6 address may be in brackets.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match bare.unwrap_or(text).parse::<IpAddr>() {
            Ok(address) if bare.is_none() || address.is_ipv6() => Ok(Self::Address(address.to_canonical())),
            _ if bare.is_some() => Err(NameError::Host),
            _ => text.parse().map(Self::Name),
        }
    }
}

/// Which hosts a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This one.
    Exact(Host),
    /// Every name below this domain, at any depth; not the domain itself.
    Below(HostName),
}

impl HostPattern {
    /// Whether a host is meant.
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(own), host) => own == host,
            (Self::Below(domain), Host::Name(name)) => is_below(name, domain.as_str()),
            (Self::Below(_), Host::Address(_)) => false,
        }
    }
}

fn is_below(name: &HostName, domain: &str) -> bool {
    name.as_str().strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

impl FromStr for HostPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let pattern = match text.strip_prefix("*.") {
            Some(domain) => Self::Below(domain.parse().map_err(|_| NameError::Star)?),
            None if text.contains('*') => return Err(NameError::Star),
            None => Self::Exact(text.parse()?),
        };
        match &pattern {
            Self::Below(domain) if !domain.as_str().contains('.') => Err(NameError::Star),
            Self::Below(name) | Self::Exact(Host::Name(name)) if name.as_str() == OURS || is_below(name, OURS) => {
                Err(NameError::Ours)
            }
            _ => Ok(pattern),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(text: &str) -> Option<String> {
        text.parse::<Host>().ok().map(|host| host.to_string())
    }

    #[test]
    fn a_host_has_one_form() {
        let table = [
            ("Example.ORG", Some("example.org")),
            ("example.org.", Some("example.org")),
            ("bücher.example", Some("xn--bcher-kva.example")),
            ("XN--BCHER-KVA.example", Some("xn--bcher-kva.example")),
            ("_dns.example.org", Some("_dns.example.org")),
            ("localhost", Some("localhost")),
            ("203.0.113.9", Some("203.0.113.9")),
            ("[2001:DB8::1]", Some("2001:db8::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("", None),
            (".", None),
            ("example..org", None),
            ("example.org..", None),
            (".example.org", None),
            ("a b.example", None),
            ("a%2eb.example", None),
            ("user@example.org", None),
            ("example.org:80", None),
            ("[203.0.113.9]", None),
            ("2130706433", None),
            ("0x7f.1", None),
            ("0x7f000001", None),
            ("127.1", None),
            ("example.0x10", None),
            ("exa\0mple.org", None),
        ];
        for (text, expected) in table {
            assert_eq!(host(text).as_deref(), expected, "{text}");
        }
        assert_eq!(host(&"a.".repeat(127)), host(&format!("{}a", "a.".repeat(126))));
        assert_eq!(host(&format!("{}aa", "a.".repeat(126))), None);
        assert_eq!(host(&"a".repeat(64)), None);
    }

    #[test]
    fn a_star_means_every_name_below_and_not_the_domain_itself() {
        let pattern: HostPattern = "*.Example.org".parse().unwrap();
        for (host, expected) in [
            ("a.example.org", true),
            ("a.b.EXAMPLE.org.", true),
            ("example.org", false),
            ("badexample.org", false),
            ("example.org.evil", false),
            ("203.0.113.9", false),
        ] {
            assert_eq!(pattern.matches(&host.parse().unwrap()), expected, "{host}");
        }
        assert_eq!(pattern.to_string(), "*.example.org");
    }

    #[test]
    fn what_is_no_pattern_says_what_would_be() {
        for (text, error) in [
            ("*", NameError::Star),
            ("*.org", NameError::Star),
            ("a.*.org", NameError::Star),
            ("*example.org", NameError::Star),
            ("*.203.0.113.9", NameError::Star),
            ("https://example.org", NameError::Host),
            ("example.org:443", NameError::Host),
            ("git.ostler.internal", NameError::Ours),
            ("*.ostler.internal", NameError::Ours),
        ] {
            assert_eq!(text.parse::<HostPattern>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_stays_what_it_is(text in "[a-zA-Z0-9._äß-]{0,40}") {
            if let Ok(name) = text.parse::<HostName>() {
                prop_assert_eq!(name.as_str().parse::<HostName>().unwrap(), name.clone());
                prop_assert!(name.as_str().is_ascii());
            }
        }
    }
}
