//! Providers that behave and that do not, on a socket of the test.

use std::sync::Mutex;
use std::time::Duration;

use ostler_protocol::event::Usage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::agent::message::Message;
use crate::agent::model::Retry;
use crate::agent::tools;
use crate::config::Secret;

const OPENAI: &str = include_str!("streams/openai_tools.sse");
const ANTHROPIC: &str = include_str!("streams/anthropic_tools.sse");

/// What a server does with one connection after it has read the request.
enum Act {
    /// Sends these bytes and closes.
    Send(String),
    /// Sends these bytes and then nothing for ever.
    Stall(String),
    /// Sends the first, then the second again and again.
    Endless(String, String),
    /// Closes without a word.
    Hang,
}

struct Server {
    address: String,
    /// Requests, as they came.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// A server that answers each connection with the next act, the last one again and again.
    async fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, acts) = (Arc::clone(&requests), Arc::new(acts));
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((connection, _)) = listener.accept().await else { return };
                let (seen, acts) = (Arc::clone(&seen), Arc::clone(&acts));
                tokio::spawn(async move { serve(connection, &acts[number.min(acts.len() - 1)], &seen).await });
            }
        });
        Self { address, requests }
    }

    fn provider(&self, kind: ProviderKind) -> Arc<Provider> {
        let mut settings = ProviderSettings::new(kind);
        settings.base_url = format!("http://{}/v1", self.address);
        settings.api_key = Some(Secret::new("sk-canary"));
        settings.idle_timeout = Duration::from_millis(300);
        settings.answer_timeout = Duration::from_millis(900);
        Arc::new(Provider::new("local", settings).unwrap())
    }
}

async fn serve(mut connection: TcpStream, act: &Act, seen: &Mutex<Vec<String>>) {
    let request = request(&mut connection).await;
    seen.lock().unwrap().push(request);
    match act {
        Act::Send(bytes) => drop(connection.write_all(bytes.as_bytes()).await),
        Act::Stall(bytes) => {
            let _ = connection.write_all(bytes.as_bytes()).await;
            std::future::pending::<()>().await;
        }
        Act::Endless(first, again) => {
            let _ = connection.write_all(first.as_bytes()).await;
            while connection.write_all(again.as_bytes()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Act::Hang => {}
    }
}

async fn request(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let read = connection.read(&mut piece).await.unwrap_or(0);
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if read == 0 || body.len() >= length.unwrap_or(0) {
            return text;
        }
    }
}

fn reply(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The head of a stream whose end is the end of the connection, and its beginning.
fn stream(beginning: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n{beginning}")
}

fn question() -> Request {
    let messages = vec![Message::User { text: "fix it".into() }];
    Request { system: "be good".into(), messages, tools: tools::definitions() }
}

async fn ask(kind: ProviderKind, act: Act) -> (Result<Response, ModelError>, String) {
    let server = Server::start(vec![act]).await;
    let (deltas, mut pieces) = mpsc::channel(64);
    let answer = server.provider(kind).model("small").respond(question(), deltas).await;
    let mut seen = String::new();
    while let Ok(piece) = pieces.try_recv() {
        seen.push_str(&piece);
    }
    (answer, seen)
}

#[tokio::test]
async fn a_stream_becomes_an_answer_and_its_words_are_seen_on_the_way() {
    for (kind, body) in [(ProviderKind::OpenAi, OPENAI), (ProviderKind::Anthropic, ANTHROPIC)] {
        let (answer, seen) = ask(kind, Act::Send(stream(body))).await;
        let answer = answer.unwrap();
        assert_eq!((answer.text.as_str(), seen.as_str(), answer.calls.len()), ("I look.", "I look.", 2));
        assert_ne!(answer.usage, Usage::default());
    }
}

#[tokio::test]
async fn requests_say_what_the_apis_want() {
    for kind in [ProviderKind::OpenAi, ProviderKind::Anthropic] {
        let server = Server::start(vec![Act::Hang]).await;
        let (deltas, _pieces) = mpsc::channel(64);
        server.provider(kind).model("org/small").respond(question(), deltas).await.unwrap_err();
        let request = server.requests.lock().unwrap()[0].replace(&server.address, "ADDRESS");
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let mut body: Value = serde_json::from_str(body).unwrap();
        let tools = body["tools"].as_array().unwrap().len();
        assert_eq!(tools, tools::definitions().len());
        body["tools"].as_array_mut().unwrap().drain(1..tools - 1);
        let head = head.lines().filter(|line| !line.starts_with("content-length")).collect::<Vec<_>>().join("\n");
        let shown = format!("{head}\n\n{}", serde_json::to_string_pretty(&body).unwrap());
        insta::assert_snapshot!(format!("request_{kind:?}"), shown);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_stalls_or_never_ends_is_an_error_with_the_right_advice() {
    let end = OPENAI.find("\"index\":1,\"id\"").unwrap();
    let half = &OPENAI[..OPENAI[..end].rfind("\n\n").unwrap() + 2];
    let ping = "event: ping\ndata: {\"type\": \"ping\"}\n\n".to_owned();
    let page = "<!DOCTYPE html><html><body>It works!</body></html>";
    let cases = [
        ("breaks", Act::Send(stream(half))),
        ("stalls", Act::Stall(stream(half))),
        ("never begins", Act::Stall(String::new())),
        ("empty", Act::Send(stream(""))),
        ("never ends", Act::Endless(stream(half), ": still here\n\n".into())),
        ("pings for ever", Act::Endless(stream(""), ping)),
        ("hangs up", Act::Hang),
        ("is no HTTP", Act::Send("SSH-2.0-OpenSSH_9.2\r\n".into())),
        ("is a page", Act::Send(reply("200 OK", "text/html; charset=utf-8", page))),
        ("is something else", Act::Send(reply("200 OK", "image/png", "x"))),
        (
            "breaks in one piece",
            Act::Send(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{\"choices\":".into(),
            ),
        ),
        (
            "drips in one piece",
            Act::Endless("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{".into(), " ".into()),
        ),
        ("tells the key", Act::Send(reply("200 OK", "application/json", "{\"authorization\":\"Bearer sk-canary\"}"))),
        ("is other JSON", Act::Send(reply("200 OK", "application/json", "{\"status\":\"ok\"}"))),
        (
            "breaks its length",
            Act::Send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99\r\n\r\ndata: x".into()),
        ),
    ];
    let mut told = Vec::new();
    for (name, act) in cases {
        let (answer, _) = ask(ProviderKind::OpenAi, act).await;
        let error = answer.unwrap_err();
        let words = crate::telemetry::chain(&error);
        let address = words.split("http://127.0.0.1:").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or("-");
        assert!(!words.contains("sk-canary"), "{words}");
        told.push(format!("{name}: {:?}: {}", error.retry(), words.replace(address, "PORT")));
    }
    insta::assert_snapshot!(told.join("\n"));
}

#[tokio::test]
async fn nobody_at_the_address_is_worth_another_try() {
    let mut settings = ProviderSettings::new(ProviderKind::OpenAi);
    "http://127.0.0.1:1/v1".clone_into(&mut settings.base_url);
    let provider = Arc::new(Provider::new("local", settings).unwrap());
    let (deltas, _pieces) = mpsc::channel(1);
    let error = provider.model("m").respond(question(), deltas).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Soon);
    let words = crate::telemetry::chain(&error);
    assert!(
        words.starts_with("could not reach the provider `local` at http://127.0.0.1:1/v1/chat/completions"),
        "{words}"
    );
    assert!(words.contains("refused"), "{words}");
}

#[tokio::test]
async fn who_asks_for_a_model_that_is_not_there_is_told_what_is() {
    let missing = r#"{"error":{"message":"The model `small` does not exist","code":"model_not_found"}}"#;
    let list = r#"{"object":"list","data":[{"id":"large"},{"id":"smaller"},{"object":"no name"}]}"#;
    let acts = vec![
        Act::Send(reply("404 Not Found", "application/json", missing)),
        Act::Send(reply("200 OK", "application/json", list)),
    ];
    let server = Server::start(acts).await;
    let (deltas, _pieces) = mpsc::channel(1);
    let error = server.provider(ProviderKind::OpenAi).model("small").respond(question(), deltas).await.unwrap_err();
    let expected =
        "the provider `local` has no model `small`: The model `small` does not exist; it has: smaller, large";
    assert_eq!(error.to_string(), expected);
    assert!(server.requests.lock().unwrap()[1].starts_with("GET /v1/models "));
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let other = Server::start(vec![Act::Send(stream(OPENAI))]).await;
    let redirect =
        format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{}/x\r\ncontent-length: 0\r\n\r\n", other.address);
    let (answer, _) = ask(ProviderKind::OpenAi, Act::Send(redirect)).await;
    assert!(matches!(answer, Err(ModelError::NotAnApi { .. })), "{answer:?}");
    assert_eq!(other.requests.lock().unwrap().len(), 0);
}
