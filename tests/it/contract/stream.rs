//! Every frame of a live stream is of the type that the document names for it.

use anyhow::{Context, Result};
use ostler_tests::Host;
use ostler_tests::contract::document;
use ostler_tests::script::{END, script, shell};

#[tokio::test]
async fn the_stream_holds_only_frames_that_the_document_knows() -> Result<()> {
    let document = document()?;
    let (host, session) =
        Host::with_session(script(&[&shell("for i in 1 2 3; do echo $i; sleep 0.05; done"), END])).await?;
    let url = format!("{}/v1/sessions/{session}/events", host.client.url);
    let request = reqwest::Client::new().get(url).bearer_auth(&host.client.token);
    let mut response = request.header("accept", "text/event-stream").send().await?;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    host.client.prompt(session, "go").await?;
    let mut text = String::new();
    let read = async {
        while !text.contains("publish_skipped") {
            text.push_str(&String::from_utf8_lossy(&response.chunk().await?.context("the stream goes on")?));
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(ostler_tests::client::PATIENCE, read).await??;
    let mut seen = std::collections::BTreeSet::new();
    // The last piece may be the beginning of a frame.
    let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    for frame in whole.split("\n\n") {
        let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name));
        let Some(data) = field("data: ") else { continue };
        let kind = match (field("event: "), field("id: ")) {
            (None, Some(_)) => "Event",
            (Some("caught_up"), None) => "CaughtUp",
            (Some("delta"), None) => "Delta",
            other => anyhow::bail!("a frame with {other:?}: {frame}"),
        };
        document.check_type(kind, &serde_json::from_str(data)?).with_context(|| frame.to_owned())?;
        seen.insert(kind);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["CaughtUp", "Delta", "Event"], "{text}");
    Ok(())
}
