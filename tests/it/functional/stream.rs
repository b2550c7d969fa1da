//! The stream of events: replay, resume, live.

use anyhow::{Result, bail};
use ostler_tests::Host;
use ostler_tests::script::{END, script, shell};

/// Reads the stream until `until` says that it has seen enough; returns the ids.
async fn read_ids(host: &Host, path: &str, last: Option<&str>, until: impl Fn(&str) -> bool) -> Result<Vec<u64>> {
    let mut request = reqwest::Client::new()
        .get(format!("{}{path}", host.client.url))
        .bearer_auth(&host.client.token)
        .header("accept", "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let mut response = request.send().await?;
    if !response.status().is_success() {
        bail!("{}", response.text().await?);
    }
    let mut text = String::new();
    let read = async {
        while let Some(piece) = response.chunk().await? {
            text.push_str(&String::from_utf8_lossy(&piece));
            if until(&text) {
                break;
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(ostler_tests::client::PATIENCE, read).await??;
    Ok(text.lines().filter_map(|line| line.strip_prefix("id:")).filter_map(|id| id.trim().parse().ok()).collect())
}

#[tokio::test]
async fn a_reader_resumes_after_the_last_event_that_it_saw() -> Result<()> {
    let turns = script(&[&shell("echo hello"), END]);
    let (host, session) = Host::with_session(turns).await?;
    let path = format!("/v1/sessions/{session}/events");
    host.client.prompt(session, "go").await?;
    let live = read_ids(&host, &path, None, |text| text.contains("publish_skipped")).await?;
    let head = host.client.wait_until_idle(session).await?.len() as u64;
    assert_eq!(live, (1..=head).collect::<Vec<_>>(), "live events have no gap and no repetition");
    let resumed = read_ids(&host, &path, Some("3"), |text| text.contains("caught_up")).await?;
    assert_eq!(resumed, (4..=head).collect::<Vec<_>>());
    Ok(())
}
