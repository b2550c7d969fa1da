//! `ostler attach`: watches a session from its beginning, on a screen of its own or in lines.

use std::path::Path;

use super::args::Attach;
use super::author::author;
use super::client::Client;
use super::feed::{Feed, Patience};
use super::follow::{Until, View, follow};
use super::output::Printer;
use super::{CliError, ids, tui};

pub(super) async fn execute(attach: Attach, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    let session = ids::session(attach.session, client).await?;
    if printer.screen && !attach.json && !attach.plain && !attach.follow_until_idle {
        let author = author(&attach.author, Path::new("."), |_| None).await;
        let author = author.map_err(|error| tui::explained(&error));
        return tui::attach(session, author, client, printer).await;
    }
    let until = if attach.follow_until_idle { Until::Idle } else { Until::Interrupted };
    let view = View::of(attach.json, printer);
    follow(Feed::new(client, session, Patience::default()), until, view, printer).await
}
