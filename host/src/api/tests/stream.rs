//! Streams of events: replay, resume, live, slow readers, the end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::header;
use ostler_protocol::event::{ModelStop, Usage};
use ostler_protocol::{CallId, Delta, EventBody, TurnId};

use super::fake::*;
use crate::api::ApiLimits;
use crate::api::feed::PAGE;

fn path() -> String {
    format!("/v1/sessions/{SESSION}/events")
}

fn said(turn: TurnId, step: u32, text: &str) -> Delta {
    Delta::ModelText { turn, step, text: text.to_owned() }
}

fn responded(turn: TurnId, step: u32, text: &str) -> EventBody {
    EventBody::ModelResponded {
        turn,
        step,
        text: text.to_owned(),
        calls: Vec::new(),
        first_token_ms: 1,
        stop: ModelStop::Finished,
        usage: Usage::default(),
    }
}

#[tokio::test]
async fn a_stream_replays_marks_the_end_and_goes_on_live() {
    let host = TestHost::new();
    host.fake.notice("one");
    host.fake.notice("two");
    let mut reader = Reader::open(&host, &path(), None).await;
    assert_eq!(reader.headers[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(
        reader.frame().await.unwrap(),
        "id: 1\ndata: {\"seq\":1,\"at_ms\":1700000000001,\"type\":\"notice\",\"text\":\"one\"}"
    );
    assert_eq!(reader.names(2).await, ["2", "caught_up"]);
    host.fake.notice("three");
    assert_eq!(reader.names(1).await, ["3"]);
    let call = CallId::generate();
    host.fake.deltas.send(Delta::ToolOutput { call, text: "a\nb".into() }).unwrap();
    let expected = format!("event: delta\ndata: {{\"type\":\"tool_output\",\"call\":\"{call}\",\"text\":\"a\\nb\"}}");
    assert_eq!(reader.frame().await.unwrap(), expected);
}

#[tokio::test]
async fn a_reader_resumes_where_it_was() {
    let host = TestHost::new();
    for number in 1..=5 {
        host.fake.notice(&number.to_string());
    }
    let after = format!("{}?after=2", path());
    assert_eq!(Reader::open(&host, &after, None).await.names(4).await, ["3", "4", "5", "caught_up"]);
    assert_eq!(Reader::open(&host, &path(), Some(4)).await.names(2).await, ["5", "caught_up"]);
    assert_eq!(Reader::open(&host, &after, Some(4)).await.names(2).await, ["5", "caught_up"], "the header counts");
    assert_eq!(
        Reader::open(&host, &path(), Some(5)).await.frame().await.unwrap(),
        "event: caught_up\ndata: {\"seq\":5}"
    );
}

#[tokio::test]
async fn events_that_come_during_the_replay_are_neither_lost_nor_doubled() {
    let host = TestHost::new();
    for number in 0..PAGE {
        host.fake.notice(&number.to_string());
    }
    let mut reader = Reader::open(&host, &path(), None).await;
    let mut names = reader.names(1).await;
    host.fake.notice("meanwhile");
    names.extend(reader.names(PAGE + 1).await);
    let mut expected: Vec<String> = (1..=PAGE + 1).map(|seq| seq.to_string()).collect();
    expected.push("caught_up".to_owned());
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_quiet_stream_shows_that_it_lives() {
    let host = TestHost::with_limits(ApiLimits { heartbeat: Duration::from_millis(5), ..ApiLimits::default() });
    let mut reader = Reader::open(&host, &path(), None).await;
    assert_eq!(reader.names(3).await, ["caught_up", ": alive", ": alive"]);
}

#[tokio::test]
async fn a_slow_reader_holds_one_page_and_loses_only_deltas() {
    let host = TestHost::new();
    let total = 20 * PAGE;
    for number in 0..total {
        host.fake.notice(&number.to_string());
    }
    let mut reader = Reader::open(&host, &path(), None).await;
    reader.names(1).await;
    let turn = TurnId::generate();
    for number in 0..1000 {
        host.fake.deltas.send(said(turn, 1, &number.to_string())).unwrap();
    }
    assert_eq!(host.fake.pages_read.load(Ordering::SeqCst), 1, "nothing is read ahead of the reader");
    let rest = reader.names(total).await;
    let expected: Vec<String> = (2..=total).map(|seq| seq.to_string()).chain(["caught_up".into()]).collect();
    assert_eq!(rest, expected);
    // The first deltas are gone, the last ones come merged.
    let frame = reader.frame().await.unwrap();
    assert!(frame.starts_with("event: delta") && frame.contains("998999") && !frame.contains("\"0"), "{frame}");
}

#[tokio::test]
async fn a_delta_that_its_event_has_overtaken_is_dropped() {
    let host = TestHost::new();
    let turn = TurnId::generate();
    let mut reader = Reader::open(&host, &path(), None).await;
    assert_eq!(reader.names(1).await, ["caught_up"]);
    host.fake.deltas.send(said(turn, 1, "late")).unwrap();
    host.fake.append(responded(turn, 1, "late"));
    host.fake.deltas.send(said(turn, 2, "fresh")).unwrap();
    assert_eq!(reader.names(1).await, ["1"]);
    let frame = reader.frame().await.unwrap();
    assert!(frame.contains("fresh") && !frame.contains("late"), "{frame}");
}

#[tokio::test]
async fn a_stream_ends_when_the_host_stops() {
    let host = TestHost::new();
    let mut first = Reader::open(&host, &path(), None).await;
    assert_eq!(first.names(1).await, ["caught_up"]);
    host.stopping.cancel();
    assert_eq!(first.frame().await, None);

    let host = TestHost::new();
    let mut second = Reader::open(&host, &path(), None).await;
    assert_eq!(second.names(1).await, ["caught_up"]);
    host.fake.notice("the last word");
    *host.fake.head.lock().unwrap() = None;
    assert_eq!(second.names(1).await, ["1"], "what became durable is still sent");
    assert_eq!(second.frame().await, None);
}

#[tokio::test]
async fn a_gap_in_the_log_ends_the_stream() {
    let host = TestHost::new();
    for number in 1..=3 {
        host.fake.notice(&number.to_string());
    }
    host.fake.events.lock().unwrap().remove(1);
    assert_eq!(Reader::open(&host, &path(), None).await.frame().await, None);
}

#[tokio::test]
async fn a_page_is_plain_json() {
    let host = TestHost::new();
    for number in 1..=3 {
        host.fake.notice(&number.to_string());
    }
    let (_, page) = host.get(&format!("{}?format=json&after=1&limit=1", path())).await;
    assert_eq!(
        page,
        serde_json::json!({
            "events": [{"seq": 2, "at_ms": 1_700_000_000_002_u64, "type": "notice", "text": "2"}],
            "head_seq": 3
        })
    );
    let request = admitted(axum::http::Method::GET, &path()).header(header::ACCEPT, "application/json; q=1");
    let response = host.send(request.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(answer(response).await.1["events"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn only_so_many_streams_are_open_and_one_that_ends_makes_room() {
    let host = TestHost::with_limits(ApiLimits { streams: 2, ..ApiLimits::default() });
    let first = Reader::open(&host, &path(), None).await;
    let _second = Reader::open(&host, &path(), None).await;
    let request = || admitted(axum::http::Method::GET, &path()).body(axum::body::Body::empty()).unwrap();
    let response = host.send(request()).await;
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    let (status, error) = answer(response).await;
    assert_eq!((status.as_u16(), &error["code"]), (429, &"overloaded".into()), "{error}");
    assert_eq!(host.get(&format!("{}?format=json", path())).await.0, 200, "pages need no place");
    drop(first);
    assert_eq!(host.send(request()).await.status(), 200);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_refused() {
    let host = TestHost::with_limits(ApiLimits { body_time: Duration::from_millis(5), ..ApiLimits::default() });
    let never = futures::stream::pending::<Result<axum::body::Bytes, std::io::Error>>();
    let request = admitted(axum::http::Method::POST, &format!("/v1/sessions/{SESSION}/prompts"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(axum::body::Body::from_stream(never))
        .unwrap();
    let (status, error) = answer(host.send(request).await).await;
    assert_eq!(status, 400);
    assert!(error["message"].as_str().unwrap().starts_with("the body did not arrive within"), "{error}");
}
