//! What runs in a sandbox beside the agent's tools: background commands, ports, previews, terminals.

use anyhow::{Context, Result, ensure};
use ostler_protocol::processes::{PortList, PreviewView, ProcessOutput, ProcessView, TerminalList};
use ostler_protocol::{EventBody, SessionId};
use ostler_tests::Host;
use ostler_tests::client::PATIENCE;
use ostler_tests::script::{END, script, shell};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::attach::Terminal;

/// A session whose sandbox runs.
async fn running() -> Result<(Host, SessionId)> {
    // A turn without a tool would not wait for the sandbox.
    let (host, session) = Host::with_session(script(&[&shell("true"), END])).await?;
    host.client.prompt(session, "go").await?;
    host.client.wait_until_idle(session).await?;
    Ok((host, session))
}

async fn ask<T: DeserializeOwned>(host: &Host, method: Method, path: &str, body: Option<Value>) -> Result<T> {
    Ok(serde_json::from_value(host.client.ok(method, path, body).await?)?)
}

async fn start(host: &Host, session: SessionId, name: &str, command: &str) -> Result<ProcessView> {
    let body = json!({ "name": name, "command": command });
    ask(host, Method::POST, &format!("/v1/sessions/{session}/processes"), Some(body)).await
}

async fn output(host: &Host, session: SessionId, name: &str, offset: u64) -> Result<ProcessOutput> {
    let path = format!("/v1/sessions/{session}/processes/{name}/output?offset={offset}");
    ask(host, Method::GET, &path, None).await
}

/// Waits until a command has written some words.
async fn wait_for_words(host: &Host, session: SessionId, name: &str, words: &str) -> Result<ProcessOutput> {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let found = output(host, session, name, 0).await?;
        if found.output.contains(words) {
            return Ok(found);
        }
        ensure!(std::time::Instant::now() < until, "{name} did not write {words:?}: {found:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn people_start_commands_in_the_background_follow_and_end_them() -> Result<()> {
    let (host, session) = running().await?;
    let started = start(&host, session, "web", "echo begun; while sleep 0.01; do :; done").await?;
    assert_eq!((started.name.as_str(), started.exit_status), ("web", None));
    let found = wait_for_words(&host, session, "web", "begun\n").await?;
    assert_eq!((found.offset, found.next_offset, found.written), (0, 6, 6));
    assert_eq!(output(&host, session, "web", 6).await?.output, "");
    // The same name again is refused and starts nothing.
    let path = format!("/v1/sessions/{session}/processes");
    let again = json!({ "name": "web", "command": "true" });
    let (status, _) = host.client.send(Method::POST, &path, Some(again)).await?;
    assert_eq!(status, StatusCode::CONFLICT);
    let ended: ProcessView = ask(&host, Method::POST, &format!("{path}/web/stop"), None).await?;
    assert_eq!(ended.exit_status, Some(143));
    // Who started what is in the log, once.
    let started: Vec<_> = host.client.events(session).await?;
    let started = started.iter().filter(|event| matches!(&event.body, EventBody::ProcessStarted { process, by, .. } if process == "web" && by.name == "Test Person"));
    assert_eq!(started.count(), 1);
    for (method, path, expected) in [
        (Method::POST, format!("{path}/nobody/stop"), StatusCode::NOT_FOUND),
        (Method::GET, format!("{path}/nobody/output"), StatusCode::NOT_FOUND),
        (Method::GET, format!("{path}/web/output?limit=0"), StatusCode::BAD_REQUEST),
    ] {
        let (status, body) = host.client.send(method, &path, None).await?;
        assert_eq!(status, expected, "{path}: {body}");
    }
    Ok(())
}

#[tokio::test]
async fn a_command_is_ended_by_several_at_a_time_and_each_hears_how() -> Result<()> {
    let (host, session) = running().await?;
    // It takes the whole time of grace to end, so that the others come in between.
    start(&host, session, "web", "trap '' TERM; echo ready; while :; do sleep 0.01; done").await?;
    wait_for_words(&host, session, "web", "ready").await?;
    let path = format!("/v1/sessions/{session}/processes/web/stop");
    let stop = || ask::<ProcessView>(&host, Method::POST, &path, None);
    let (first, second, third) = tokio::try_join!(stop(), stop(), stop())?;
    assert_eq!([first, second, third].map(|ended| ended.exit_status), [Some(137); 3]);
    Ok(())
}

#[tokio::test]
async fn a_command_in_the_background_outlives_its_host_with_what_it_wrote() -> Result<()> {
    let (mut host, session) = running().await?;
    start(&host, session, "web", "echo before; until [ -e /tmp/go ]; do sleep 0.01; done; echo after; sleep 1000")
        .await?;
    wait_for_words(&host, session, "web", "before").await?;
    host.kill()?;
    host.launch().await?;
    start(&host, session, "go", "touch /tmp/go").await?;
    assert_eq!(wait_for_words(&host, session, "web", "after").await?.output, "before\nafter\n");
    Ok(())
}

#[tokio::test]
async fn a_session_without_a_sandbox_says_so() -> Result<()> {
    let (host, session) = Host::with_session(script(&[END])).await?;
    for path in ["ports", "processes", "terminals"] {
        let (status, body) = host.client.send(Method::GET, &format!("/v1/sessions/{session}/{path}"), None).await?;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("prompt")), "{body}");
    }
    Ok(())
}

/// A server that says what it was asked, and sends back what comes after a switch of protocols.
const SERVER: &str = r#"
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.headers.get("Upgrade") == "echo":
            self.send_response(101); self.send_header("Upgrade", "echo"); self.send_header("Connection", "Upgrade"); self.end_headers()
            self.close_connection = True
            while data := self.connection.recv(4096):
                self.connection.sendall(data.upper())
            return
        if self.path == "/moved":
            self.send_response(302); self.send_header("Location", "http://localhost:3000/there"); self.send_header("Content-Length", "0"); self.end_headers()
            return
        body = (self.command + " " + self.path + "\n" + str(self.headers)).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.send_header("Set-Cookie", "app=1; Domain=localhost"); self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body[::-1])
class Six(http.server.ThreadingHTTPServer):
    import socket
    address_family = socket.AF_INET6
kind, address = (Six, "::1") if sys.argv[1] == "6" else (http.server.ThreadingHTTPServer, "127.0.0.1")
server = kind((address, 3000), Handler)
print("ready", flush=True)
server.serve_forever()
"#;

async fn serve(family: u8) -> Result<(Host, SessionId, PreviewView)> {
    let (host, session) = running().await?;
    let command = format!("cat > /tmp/server.py <<'END'\n{SERVER}\nEND\nexec python3 /tmp/server.py {family} 2>&1");
    start(&host, session, "web", &command).await?;
    wait_for_words(&host, session, "web", "ready").await?;
    let path = format!("/v1/sessions/{session}/previews");
    let preview = ask(&host, Method::POST, &path, Some(json!({ "port": 3000 }))).await?;
    Ok((host, session, preview))
}

/// Sends bytes as they are, with `Connection: close` among them, and gives all that comes back.
async fn raw(host: &Host, request: &str) -> Result<String> {
    raw_at(host.client.url.trim_start_matches("http://"), request).await
}

async fn raw_at(address: &str, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn get(preview: &PreviewView, path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {}.localhost\r\nConnection: close\r\n{headers}\r\n", preview.id)
}

#[tokio::test]
async fn a_port_of_a_sandbox_is_seen_in_a_browser_under_an_origin_of_its_own() -> Result<()> {
    let (host, session, preview) = serve(4).await?;
    let ports: PortList = ask(&host, Method::GET, &format!("/v1/sessions/{session}/ports"), None).await?;
    let found = ports.ports.iter().map(|port| (port.port, port.process.as_deref())).collect::<Vec<_>>();
    assert_eq!(found, [(3000, Some("python3"))]);
    let (_, key) = preview.url.rsplit_once("/?").context("an address with a key")?;
    // A person opens it: the key goes into a cookie and out of the address.
    let opened = raw(&host, &get(&preview, &format!("/?{key}"), "Sec-Fetch-Mode: navigate\r\n")).await?;
    assert!(opened.starts_with("HTTP/1.1 303 "), "{opened}");
    assert!(opened.contains("location: /\r\n"), "{opened}");
    let cookie = opened.lines().find_map(|line| line.strip_prefix("set-cookie: ")).context("a cookie")?;
    let cookie = cookie.split(';').next().unwrap_or_default();
    // What the server sees is a request of its own machine, without key or token.
    let headers = format!("Cookie: app=1; {cookie}\r\nAuthorization: Bearer {}\r\nX-Own: 1\r\n", host.client.token);
    let seen = raw(&host, &get(&preview, "/a?b=c", &headers)).await?;
    assert!(seen.starts_with("HTTP/1.1 200 "), "{seen}");
    assert!(seen.contains("GET /a?b=c\n") && seen.contains("host: localhost:3000\n"), "{seen}");
    assert!(seen.contains("cookie: app=1\n") && seen.contains("x-own: 1\n"), "{seen}");
    assert!(!seen.contains(&host.client.token) && !seen.contains(cookie), "{seen}");
    assert!(seen.contains("set-cookie: app=1\r\n"), "{seen}");
    // A browser may try the other address of loopback first: nobody else is there.
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        let port = host.client.url.rsplit(':').next().context("a port")?;
        let seen = raw_at(&format!("[::1]:{port}"), &get(&preview, "/six", &headers)).await?;
        assert!(seen.contains("GET /six\n"), "{seen}");
    }
    let moved = raw(&host, &get(&preview, "/moved", &headers)).await?;
    assert!(moved.contains("location: /there\r\n"), "{moved}");
    let post = format!(
        "POST / HTTP/1.1\r\nHost: {}.localhost\r\nConnection: close\r\n{headers}Content-Length: 3\r\n\r\nabc",
        preview.id
    );
    let posted = raw(&host, &post).await?;
    assert!(posted.starts_with("HTTP/1.1 201 ") && posted.ends_with("\r\n\r\ncba"), "{posted}");
    Ok(())
}

#[tokio::test]
async fn a_preview_gives_nothing_without_its_key_and_nothing_of_the_api_with_it() -> Result<()> {
    let (host, session, preview) = serve(6).await?;
    let (_, key) = preview.url.rsplit_once("/?").context("an address with a key")?;
    let token = format!("Authorization: Bearer {}\r\n", host.client.token);
    // Neither nothing, nor a wrong key, nor the host's token opens it.
    for (path, headers) in [("/", ""), ("/?ostler_preview=0", ""), ("/v1/sessions", token.as_str())] {
        let refused = raw(&host, &get(&preview, path, headers)).await?;
        assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    }
    // A worker of the page would see each address that is opened, with the key.
    let worker = raw(&host, &get(&preview, &format!("/worker.js?{key}"), "Service-Worker: script\r\n")).await?;
    assert!(worker.starts_with("HTTP/1.1 403 "), "{worker}");
    // Under its name there is no API: the path is the sandbox's.
    let asked = raw(&host, &get(&preview, &format!("/v1/sessions?{key}"), &token)).await?;
    assert!(asked.contains("GET /v1/sessions\n") && !asked.contains(&host.client.token), "{asked}");
    let ended: PreviewView =
        ask(&host, Method::DELETE, &format!("/v1/sessions/{session}/previews/{}", preview.id), None).await?;
    assert_eq!(ended, preview);
    let gone = raw(&host, &get(&preview, &format!("/?{key}"), "")).await?;
    assert!(gone.starts_with("HTTP/1.1 404 "), "{gone}");
    // Nothing listens: said in words.
    let path = format!("/v1/sessions/{session}/previews");
    let empty: PreviewView = ask(&host, Method::POST, &path, Some(json!({ "port": 4000 }))).await?;
    let (_, key) = empty.url.rsplit_once("/?").context("an address with a key")?;
    let refused = raw(&host, &get(&empty, &format!("/?{key}"), "")).await?;
    assert!(refused.starts_with("HTTP/1.1 502 ") && refused.contains("nothing listens on port 4000"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_connection_of_a_preview_can_switch_protocols_and_ends_with_the_preview() -> Result<()> {
    let (host, session, preview) = serve(4).await?;
    let (_, key) = preview.url.rsplit_once("/?").context("an address with a key")?;
    let mut stream = TcpStream::connect(host.client.url.trim_start_matches("http://")).await?;
    let request = format!(
        "GET /ws?{key} HTTP/1.1\r\nHost: {}.localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        preview.id
    );
    stream.write_all(request.as_bytes()).await?;
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await??);
    }
    assert!(seen.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&seen));
    for words in ["hello", "again"] {
        stream.write_all(words.as_bytes()).await?;
        let mut answer = [0; 5];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await??;
        assert_eq!(String::from_utf8_lossy(&answer), words.to_uppercase());
    }
    let path = format!("/v1/sessions/{session}/previews/{}", preview.id);
    ask::<PreviewView>(&host, Method::DELETE, &path, None).await?;
    // What was open is open no more.
    let rest = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 16])).await?;
    assert!(matches!(rest, Ok(0) | Err(_)), "{rest:?}");
    Ok(())
}

#[tokio::test]
async fn a_shell_is_opened_left_found_again_and_ended() -> Result<()> {
    let (host, session) = running().await?;
    let command = host.command(&["shell", &session.to_string()])?;
    let mut first = Terminal::start(&command, 100, 30)?;
    first.wait_for_text("Ctrl-] leaves it")?;
    first.send("stty size; echo $TERM; pwd; kept=yes\r")?;
    first.wait_for_text("30 100")?;
    first.wait_for_text("/workspace")?;
    first.resize(80, 24)?;
    first.send("until [ \"$(stty size)\" = '24 80' ]; do :; done; echo resi''zed\r")?;
    first.wait_for_text("resized")?;
    // A second viewer sees what the first one types.
    let mut second = Terminal::start(&command, 80, 24)?;
    second.wait_for_text("resized")?;
    first.send("echo sha''red\r")?;
    second.wait_for_text("shared")?;
    second.send("\u{1d}")?;
    assert_eq!(second.ended()?.code(), Some(0));
    first.send("\u{1d}")?;
    assert_eq!(first.ended()?.code(), Some(0));
    first.wait_for_text("comes back")?;
    // It went on, and shows what it showed.
    let mut again = Terminal::start(&command, 80, 24)?;
    again.wait_for_text("shared")?;
    again.send("echo ke''pt=$kept; exit 3\r")?;
    again.wait_for_text("kept=yes")?;
    again.wait_for_text("the shell ended with status 3")?;
    assert_eq!(again.ended()?.code(), Some(0));
    let opened = host.client.events(session).await?;
    let opened = opened
        .iter()
        .filter(|event| matches!(&event.body, EventBody::TerminalOpened { terminal, .. } if terminal == "main"));
    assert_eq!(opened.count(), 1);
    Ok(())
}

/// Everything at once that a program can leave switched on.
const MESS: &str = "printf '\\033[?1049h\\033[?1000h\\033[?1003h\\033[?1006h\\033[?2004h\\033[?1h\\033=\\033[2;5r\\033[?6h\\033[1;7;31;44m\\033[?25l'; \
                    printf 'me''ss\\033]0;a title without an end'\r";

#[tokio::test]
async fn a_shell_leaves_the_terminal_as_it_was_however_it_ends() -> Result<()> {
    let (mut host, session) = running().await?;
    let start = |host: &Host, name: &str| {
        let command = host.command(&["shell", &session.to_string(), "--name", name])?;
        let mut terminal = Terminal::start(&command, 80, 24)?;
        terminal.wait_for_text("Ctrl-] leaves it")?;
        terminal.send(MESS)?;
        terminal.wait_for_text("mess")?;
        assert!(!terminal.scrolls());
        Ok::<_, anyhow::Error>(terminal)
    };
    let mut left = start(&host, "left")?;
    left.send("\u{1d}")?;
    left.ended()?;
    assert!(left.scrolls());
    let mut told = start(&host, "told")?;
    told.tell_to_end()?;
    told.ended()?;
    assert!(told.scrolls());
    let mut broken = start(&host, "broken")?;
    host.kill()?;
    broken.ended()?;
    assert!(broken.scrolls());
    Ok(())
}

#[tokio::test]
async fn a_shell_outlives_its_host() -> Result<()> {
    let (mut host, session) = running().await?;
    let address = host.client.url.trim_start_matches("http://").to_owned();
    let command = host.command(&["shell", &session.to_string(), "--name", "work"])?;
    let mut terminal = Terminal::start(&command, 80, 24)?;
    terminal.send("kept=yes; echo be''fore\r")?;
    terminal.wait_for_text("before")?;
    host.kill()?;
    terminal.wait_for_text("comes back to it")?;
    host.launch_at(&address).await?;
    let mut again = Terminal::start(&command, 80, 24)?;
    again.wait_for_text("before")?;
    again.send("echo ke''pt=$kept\r")?;
    again.wait_for_text("kept=yes")?;
    let path = format!("/v1/sessions/{session}/terminals");
    let found: TerminalList = ask(&host, Method::GET, &path, None).await?;
    assert_eq!(found.terminals.len(), 1);
    host.client.ok(Method::DELETE, &format!("{path}/work"), None).await?;
    again.wait_for_text("the shell ended")?;
    let found: TerminalList = ask(&host, Method::GET, &path, None).await?;
    assert_eq!(found.terminals, []);
    Ok(())
}
