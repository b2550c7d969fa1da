//! Lists that the host gives page by page, read up to what the person wants to see.

use ostler_protocol::api::{MAX_PAGE, PullRequestList, RepositoryList, SessionList};
use serde::de::DeserializeOwned;

use super::CliError;
use super::args::Listing;
use super::client::Client;
use super::output::Printer;

/// One page of a list.
pub(super) trait Page: DeserializeOwned {
    /// How many rows it holds.
    fn rows(&self) -> usize;
    /// Where the next page begins.
    fn next_cursor(&self) -> Option<&str>;
    /// Appends the page that follows.
    fn append(&mut self, next: Self);
}

macro_rules! page {
    ($list:ty, $rows:ident) => {
        impl Page for $list {
            fn rows(&self) -> usize {
                self.$rows.len()
            }

            fn next_cursor(&self) -> Option<&str> {
                self.next_cursor.as_deref()
            }

            fn append(&mut self, next: Self) {
                self.$rows.extend(next.$rows);
                self.next_cursor = next.next_cursor;
            }
        }
    };
}

page!(SessionList, sessions);
page!(PullRequestList, pull_requests);
page!(RepositoryList, repositories);

/// Reads pages until there are as many rows as wanted, or no more.
pub(super) async fn read<P: Page>(
    listing: &Listing,
    operation: &'static str,
    path: &str,
    client: &Client,
) -> Result<P, CliError> {
    up_to(usize::try_from(listing.limit).unwrap_or(usize::MAX), operation, path, client).await
}

/// Reads every page.
pub(super) async fn whole<P: Page>(operation: &'static str, path: &str, client: &Client) -> Result<P, CliError> {
    up_to(usize::MAX, operation, path, client).await
}

async fn up_to<P: Page>(wanted: usize, operation: &'static str, path: &str, client: &Client) -> Result<P, CliError> {
    let first = format!("limit={}", wanted.min(MAX_PAGE));
    let mut list: P = client.query(operation, &[path], &first).await?;
    while let Some(cursor) = list.next_cursor() {
        let missing = wanted.saturating_sub(list.rows());
        if missing == 0 {
            break;
        }
        // A cursor is made of characters that need no escaping; a host that sends others gets a bad request back.
        let query = format!("limit={}&cursor={cursor}", missing.min(MAX_PAGE));
        let next: P = client.query(operation, &[path], &query).await?;
        if next.rows() == 0 {
            break;
        }
        list.append(next);
    }
    Ok(list)
}

/// Says that there is more than what was shown.
pub(super) fn mention_more(list: &impl Page, printer: &mut Printer) {
    if list.next_cursor().is_some() {
        let shown = list.rows();
        printer.note(&format!(
            "there are more than these {shown}; `--limit {}` shows more of them",
            shown.saturating_mul(4)
        ));
    }
}
