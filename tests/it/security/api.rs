//! The API from outside.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

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

/// A host that was killed leaves word of its address, and anybody may listen there.
#[tokio::test]
async fn the_token_is_not_sent_to_another_user_who_took_the_hosts_address() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("token");
    std::fs::write(&token, "ab".repeat(32))?;
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600))?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let location = serde_json::json!({"version": 1, "url": format!("http://127.0.0.1:{port}"), "token_path": token});
    std::fs::write(folder.path().join("ostler.json"), location.to_string())?;
    let mut stranger = std::process::Command::new("busybox");
    stranger.args(["nc", "-l", "-p", &port.to_string()]).uid(65_534).gid(65_534);
    let mut stranger = stranger.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let wanted = format!(":{port:04X} ");
    let listens = || {
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
            let table = std::fs::read_to_string(table).unwrap_or_default();
            table.lines().any(|line| line.contains(&wanted) && line.contains(" 0A "))
        })
    };
    let until = std::time::Instant::now() + ostler_tests::client::PATIENCE;
    while !listens() {
        anyhow::ensure!(std::time::Instant::now() < until, "nobody listens");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let mut command = std::process::Command::new(ostler_tests::host::binary()?);
    command.arg("sessions").env("OSTLER_RUNTIME_DIR", folder.path()).env_remove("OSTLER_TOKEN").env("NO_COLOR", "1");

    let output = command.output()?;

    stranger.kill()?;
    let heard = stranger.wait_with_output()?.stdout;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another user (uid 65534) listens at") && said.contains("the token was not sent"), "{said}");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&heard).as_ref()), (Some(6), ""));
    Ok(())
}
