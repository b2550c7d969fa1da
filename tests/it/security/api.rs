//! The API from outside.

use anyhow::Result;
use ostler_tests::script::{END, script};
use ostler_tests::{Host, HostOptions};
use reqwest::StatusCode;

#[tokio::test]
async fn nothing_is_answered_without_the_token_even_on_loopback() -> Result<()> {
    let host = Host::start(HostOptions { script: script(&[END]), ..HostOptions::default() }).await?;
    let http = reqwest::Client::new();
    for path in ["/v1/health", "/v1/sessions", "/git/demo.git/info/refs?service=git-upload-pack", "/", "/nothing"] {
        let url = format!("{}{path}", host.client.url);
        for request in [http.get(&url), http.get(&url).bearer_auth("wrong"), http.get(&url).basic_auth("x", Some(""))] {
            assert_eq!(request.send().await?.status(), StatusCode::UNAUTHORIZED, "{path}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused_even_with_the_token() -> Result<()> {
    let host = Host::start(HostOptions { script: script(&[END]), ..HostOptions::default() }).await?;
    let url = format!("{}/v1/sessions", host.client.url);
    for (header, value) in [("host", "evil.example"), ("origin", "https://evil.example"), ("origin", "null")] {
        let request = reqwest::Client::new().get(&url).bearer_auth(&host.client.token).header(header, value);
        let response = request.send().await?;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{header}: {value}");
        assert!(response.headers().get("access-control-allow-origin").is_none());
    }
    Ok(())
}
