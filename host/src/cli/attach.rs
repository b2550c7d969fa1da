//! `ostler attach`: watches a session from its beginning.

use super::CliError;
use super::args::Attach;
use super::client::Client;
use super::follow::{Patience, Until, View, follow};
use super::output::Printer;

pub(super) async fn execute(attach: Attach, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
    let until = if attach.follow_until_idle { Until::Idle } else { Until::Interrupted };
    let view = View::of(attach.json, printer);
    follow(client, attach.session, until, view, Patience::default(), printer).await
}
