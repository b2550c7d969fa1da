//! Lists page by page: how many items are wanted, where a page begins, where the next one does.
//!
//! A cursor holds the last item that was sent, not a position, so that nothing is shown twice or left out when items
//! come and go meanwhile. Clients must not look into it: it carries a version and the list that it belongs to.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ostler_protocol::api::{DEFAULT_PAGE, MAX_PAGE};
use serde::Deserialize;

use super::ApiFailure;

const VERSION: &str = "1";

/// Query of a list without filters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// Most items that the page may hold.
    pub limit: Option<usize>,
    /// Where the page begins: `next_cursor` of the one before.
    pub cursor: Option<String>,
}

/// A list that comes in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Sessions,
    PullRequests,
    Repositories,
}

impl List {
    const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::PullRequests => "pull-requests",
            Self::Repositories => "repositories",
        }
    }
}

/// How many items a page may hold.
pub(super) fn limit(asked: Option<usize>) -> Result<usize, ApiFailure> {
    let limit = asked.unwrap_or(DEFAULT_PAGE);
    if (1..=MAX_PAGE).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiFailure::bad_request(format!("`limit` is {limit}, it must be between 1 and {MAX_PAGE}")))
}

/// The last item of the page before, as text; `None` for the first page.
pub(super) fn after(list: List, cursor: Option<&str>) -> Result<Option<String>, ApiFailure> {
    let Some(cursor) = cursor else { return Ok(None) };
    let text = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let last = text.as_deref().and_then(|text| text.strip_prefix(&prefix(list)));
    last.map(|last| Some(last.to_owned())).ok_or_else(wrong)
}

/// [`after`] as an id.
pub(super) fn after_id<T: std::str::FromStr>(list: List, cursor: Option<&str>) -> Result<Option<T>, ApiFailure> {
    after(list, cursor)?.map(|last| last.parse().map_err(|_| wrong())).transpose()
}

/// Cuts what was read, one item more than the page holds, to the page, and says where the next one begins.
pub(super) fn cut<T>(
    list: List,
    limit: usize,
    mut items: Vec<T>,
    key: impl Fn(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more).map(key);
    let cursor = last.map(|last| URL_SAFE_NO_PAD.encode(format!("{}{last}", prefix(list))));
    (items, cursor)
}

fn prefix(list: List) -> String {
    format!("{VERSION} {} ", list.name())
}

fn wrong() -> ApiFailure {
    ApiFailure::bad_request("`cursor` is not one that this list gave")
        .with_hint("send the `next_cursor` of the page before, or leave it out to begin with the first page")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_to_where_the_page_ended_and_only_in_its_own_list() {
        let (page, cursor) = cut(List::Repositories, 2, vec!["a", "b", "c"], |name| (*name).to_owned());
        assert_eq!(page, ["a", "b"]);
        let cursor = cursor.unwrap();
        assert_eq!(after(List::Repositories, Some(&cursor)).unwrap().as_deref(), Some("b"));
        assert!(after(List::Sessions, Some(&cursor)).is_err());
        let other_version = URL_SAFE_NO_PAD.encode("2 repositories b");
        for wrong in ["", "b", "%", &other_version, &cursor[1..]] {
            let failure = after(List::Repositories, Some(wrong)).unwrap_err();
            assert!(failure.public.hint.is_some(), "{wrong}");
        }
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        for count in 0..=2 {
            assert_eq!(cut(List::Sessions, 2, vec![0; count], |_| "x".into()).1, None, "{count}");
        }
    }
}
