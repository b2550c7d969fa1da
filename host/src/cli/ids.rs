//! Ids as people give them: whole, or the beginning of one that there is once.
//!
//! A beginning is looked up in the host's list. Does not know what the ids are of.

use std::fmt::Display;
use std::str::FromStr;

use ostler_protocol::api::{PullRequestList, SessionList};
use ostler_protocol::{PullRequestId, SessionId};

use super::client::Client;
use super::{CliError, listing};

/// Ids that are named where a beginning has several.
const NAMED: usize = 5;
/// Characters of an id after its prefix.
const LENGTH: usize = 26;

/// An id, or the beginning of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given<T> {
    /// All of it.
    Whole(T),
    /// Its beginning, the prefix and at least one character.
    Beginning(String),
}

impl<T: FromStr> FromStr for Given<T>
where
    Given<T>: Prefixed,
{
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        let rest = text.strip_prefix(Self::PREFIX).and_then(|rest| rest.strip_prefix('_'));
        let short = rest.is_some_and(|rest| (1..LENGTH).contains(&rest.len()) && rest.bytes().all(in_an_id));
        if short { Ok(Self::Beginning(text.to_owned())) } else { text.parse().map(Self::Whole) }
    }
}

/// What an id begins with.
pub trait Prefixed {
    /// Without the underscore.
    const PREFIX: &'static str;
}

impl Prefixed for Given<SessionId> {
    const PREFIX: &'static str = SessionId::PREFIX;
}

impl Prefixed for Given<PullRequestId> {
    const PREFIX: &'static str = PullRequestId::PREFIX;
}

/// Digits and letters of a lowercase ULID.
fn in_an_id(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z') && !matches!(byte, b'i' | b'l' | b'o' | b'u')
}

/// The session that is meant.
pub async fn session(given: Given<SessionId>, client: &Client) -> Result<SessionId, CliError> {
    match given {
        Given::Whole(id) => Ok(id),
        Given::Beginning(beginning) => {
            let list: SessionList = listing::whole("list sessions", "sessions", client).await?;
            let ids = list.sessions.into_iter().map(|session| session.id);
            the_one("session", "ostler sessions", beginning, ids)
        }
    }
}

/// The pull request that is meant.
pub async fn pull_request(given: Given<PullRequestId>, client: &Client) -> Result<PullRequestId, CliError> {
    match given {
        Given::Whole(id) => Ok(id),
        Given::Beginning(beginning) => {
            let list: PullRequestList = listing::whole("list pull requests", "pull-requests", client).await?;
            let ids = list.pull_requests.into_iter().map(|pull| pull.id);
            the_one("pull request", "ostler pr list", beginning, ids)
        }
    }
}

/// The only one of the ids that begins so.
fn the_one<T: Copy + Display>(
    kind: &'static str,
    list: &'static str,
    beginning: String,
    ids: impl Iterator<Item = T>,
) -> Result<T, CliError> {
    let found: Vec<T> = ids.filter(|id| id.to_string().starts_with(&beginning)).collect();
    match found[..] {
        [id] => Ok(id),
        [] => Err(CliError::NoneBegins { kind, list, beginning }),
        _ => {
            let mut names: Vec<String> = found.iter().take(NAMED).map(ToString::to_string).collect();
            if found.len() > NAMED {
                names.push(format!("{} more", found.len() - NAMED));
            }
            Err(CliError::SeveralBegin { kind, beginning, found: names.join(", ") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ses_01jd3kq4v5w6x7y8z9a0b1c2d3";
    const TWO: &str = "ses_01jd3kq4v5w6x7y8z9a0b1c2d4";

    #[test]
    fn an_id_may_be_whole_or_begun_and_nothing_else() {
        let given = |text: &str| text.parse::<Given<SessionId>>();
        assert_eq!(given(ONE).unwrap(), Given::Whole(ONE.parse().unwrap()));
        assert_eq!(given("ses_01jd").unwrap(), Given::Beginning("ses_01jd".into()));
        for wrong in ["", "ses_", "01jd3kq4v5w6x7y8z9a0b1c2d3", "pr_01jd", "ses_01JD", "ses_../x", "ses_1u"] {
            assert!(given(wrong).unwrap_err().to_string().contains("looks like `ses_"), "{wrong}");
        }
        assert!(given(&format!("{ONE}0")).is_err());
    }

    #[test]
    fn a_beginning_means_the_only_one_that_has_it() {
        let all = || [ONE, TWO].map(|id| id.parse::<SessionId>().unwrap()).into_iter();
        let find = |beginning: &str| the_one("session", "ostler sessions", beginning.to_owned(), all());
        assert_eq!(find(&TWO[..30]).unwrap(), TWO.parse().unwrap());
        assert!(
            matches!(find("ses_01jd"), Err(CliError::SeveralBegin { found, .. }) if found == format!("{ONE}, {TWO}"))
        );
        assert!(matches!(find("ses_02"), Err(CliError::NoneBegins { .. })));
    }
}
