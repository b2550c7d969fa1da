//! Lists that the host gives page by page.

use super::bench::{client, printer};
use crate::api::tests::fake::TestHost;
use crate::cli::args::Listing;
use crate::cli::sessions;

#[tokio::test]
async fn a_list_is_read_over_pages_up_to_the_limit_and_says_that_there_is_more() {
    let host = TestHost::new();
    host.fake.names.lock().unwrap().extend((0..450).map(|number| format!("r{number:03}")));
    let (address, _server) = host.listen("127.0.0.1:0").await;
    let client = client(address);
    for (limit, expected, words) in [
        (50, 50, "there are more than these 50; `--limit 200` shows more of them\n"),
        (430, 430, "there are more than these 430; `--limit 1720` shows more of them\n"),
        (450, 450, ""),
        (1000, 450, ""),
    ] {
        let (mut printer, out, err) = printer();
        sessions::repositories(Listing { limit, json: false }, &client, &mut printer).await.unwrap();
        assert_eq!(out.text().lines().filter(|line| line.starts_with('r')).count(), expected);
        assert_eq!(err.text(), words);
        let last = format!("r{:03}", expected - 1);
        assert!(out.text().lines().last().unwrap().starts_with(&last), "the pages come in order");
    }
    let (mut printer, out, err) = printer();
    sessions::repositories(Listing { limit: 300, json: true }, &client, &mut printer).await.unwrap();
    let list: ostler_protocol::api::RepositoryList = serde_json::from_str(&out.text()).unwrap();
    assert_eq!((list.repositories.len(), list.next_cursor.is_some(), err.text()), (300, true, String::new()));
}
