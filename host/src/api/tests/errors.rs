//! The shape of every error.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use ostler_protocol::{ApiError, ErrorCode};

use super::fake::*;

/// Asks, checks that the answer is an error in its one shape, and gives it without its id.
async fn error(host: &TestHost, method: Method, path: &str, body: &str) -> String {
    let (status, value) = host.ask(method.clone(), path, body).await;
    let error: ApiError = serde_json::from_value(value.clone()).unwrap_or_else(|_| panic!("{path}: {value}"));
    assert_eq!(error.status, status.as_u16());
    assert_eq!(error.code.status(), error.status);
    assert!(error.request_id.is_some_and(|id| id.starts_with("req_")), "{path}");
    let hint = error.hint.map(|hint| format!("\n    hint: {hint}")).unwrap_or_default();
    format!("{method} {path}\n    {} {}: {}{hint}\n", error.status, error.code.as_str(), error.message)
}

#[tokio::test]
async fn every_error_has_one_shape() {
    let host = TestHost::new();
    let session = format!("/v1/sessions/{SESSION}");
    let unknown = "/v1/sessions/ses_01jd3kq4v5w6x7y8z9a0b1c2d4";
    let author = r#""author":{"name":"Ada","email":"ada@example.org"}"#;
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(300_000));
    let huge = format!(r#"{{"text":"{}"}}"#, "x".repeat(600_000));
    host.fake.notice("one");
    let cases: Vec<(Method, String, String)> = vec![
        (Method::GET, "/".into(), String::new()),
        (Method::GET, "/v2/sessions".into(), String::new()),
        (Method::DELETE, "/v1/sessions".into(), String::new()),
        (Method::GET, unknown.into(), String::new()),
        (Method::GET, "/v1/sessions/../../etc".into(), String::new()),
        (Method::GET, "/v1/sessions/pr_01jd3kq4v5w6x7y8z9a0b1c2d3".into(), String::new()),
        (Method::GET, "/v1/sessions/%ff".into(), String::new()),
        (Method::GET, format!("{session}/blobs/sha256:..%2fetc"), String::new()),
        (Method::GET, format!("{session}/events?after=minus"), String::new()),
        (Method::GET, format!("{session}/events?after=9223372036854775808"), String::new()),
        (Method::GET, format!("{session}/events?since=1"), String::new()),
        (Method::GET, format!("{session}/events?limit=0"), String::new()),
        (Method::GET, format!("{session}/events?after=2"), String::new()),
        (Method::GET, format!("{unknown}/events"), String::new()),
        (Method::POST, format!("{session}/prompts"), "{\"text\": oops}".into()),
        (Method::POST, format!("{session}/prompts"), String::new()),
        (Method::POST, format!("{session}/prompts"), r#"{"text":"go","urgent":true}"#.into()),
        (Method::POST, format!("{session}/prompts"), r#"{"text":"  "}"#.into()),
        (Method::POST, format!("{session}/prompts"), long),
        (Method::POST, format!("{session}/prompts"), huge),
        (Method::POST, "/v1/sessions".into(), format!(r#"{{"repository":"../etc",{author}}}"#)),
        (Method::POST, "/v1/sessions".into(), format!(r#"{{"repository":"demo","branch":"a\nb",{author}}}"#)),
        (Method::POST, "/v1/sessions".into(), r#"{"repository":"demo","author":{"name":"A","email":"x"}}"#.into()),
        (Method::POST, "/v1/sessions".into(), format!(r#"{{{author}}}"#)),
        (Method::POST, format!("{session}/stop"), String::new()),
        (Method::PUT, "/v1/repositories/Demo".into(), String::new()),
        (Method::GET, "/v1/repositories/broken".into(), String::new()),
        (Method::GET, "/v1/pull-requests/1".into(), String::new()),
    ];
    let mut table = String::new();
    for (method, path, body) in cases {
        table.push_str(&error(&host, method, &path, &body).await);
    }
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn a_body_that_is_no_json_by_its_type_is_refused() {
    let host = TestHost::new();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let request = admitted(Method::POST, &format!("/v1/sessions/{SESSION}/prompts"));
        let request = request.header(header::CONTENT_TYPE, kind).body(Body::from(r#"{"text":"go"}"#)).unwrap();
        let (status, value) = answer(host.send(request).await).await;
        assert_eq!((status, &value["code"]), (StatusCode::BAD_REQUEST, &"bad_request".into()), "{kind}");
    }
}

#[tokio::test]
async fn an_idempotency_key_is_visible_ascii_and_not_endless() {
    let host = TestHost::new();
    let ask = async |keys: &[&[u8]]| {
        let mut request = admitted(Method::POST, &format!("/v1/sessions/{SESSION}/prompts"));
        request = request.header(header::CONTENT_TYPE, "application/json");
        for key in keys {
            request = request.header("idempotency-key", *key);
        }
        answer(host.send(request.body(Body::from(r#"{"text":"go"}"#)).unwrap()).await).await
    };
    let long = "k".repeat(129);
    for keys in [&[&b""[..]][..], &[b"a b"], &[b"a\tb"], &["\u{e4}".as_bytes()], &[long.as_bytes()], &[b"a", b"b"]] {
        let (status, error) = ask(keys).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{keys:?}: {error}");
        assert!(error["message"].as_str().unwrap().contains("`Idempotency-Key`"), "{error}");
    }
    for key in ["k", &long[1..], "5f0c7b1e-!~"] {
        assert_eq!(ask(&[key.as_bytes()]).await.0, StatusCode::ACCEPTED, "{key}");
    }
}

#[tokio::test]
async fn the_cause_stays_in_the_log() {
    let host = TestHost::new();
    let (_, value) = host.ask(Method::POST, &format!("/v1/sessions/{SESSION}/stop"), "").await;
    assert_eq!(value["code"], ErrorCode::SandboxFailed.as_str());
    assert!(!value.to_string().contains("secret"));
}

#[tokio::test]
async fn a_wrong_method_says_which_are_right() {
    let host = TestHost::new();
    let response = host.send(admitted(Method::DELETE, "/v1/sessions").body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()[header::ALLOW], "GET,HEAD,POST");
}

#[tokio::test]
async fn the_request_id_is_ours_and_the_same_in_header_and_body() {
    let host = TestHost::new();
    let request = admitted(Method::GET, "/nowhere").header("x-request-id", "chosen").body(Body::empty()).unwrap();
    let response = host.send(request).await;
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_ne!(id, "chosen");
    assert_eq!(answer(response).await.1["request_id"], id);
}

#[tokio::test]
async fn what_is_right_is_answered() {
    let host = TestHost::new();
    let author = r#""author":{"name":"Ada","email":"ada@example.org"}"#;
    let session = format!("/v1/sessions/{SESSION}");
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(ostler_protocol::api::MAX_PROMPT));
    for (method, path, body, expected) in [
        (Method::POST, "/v1/sessions", format!(r#"{{"repository":"demo",{author}}}"#), StatusCode::CREATED),
        (Method::GET, "/v1/sessions", String::new(), StatusCode::OK),
        (Method::GET, session.as_str(), String::new(), StatusCode::OK),
        (Method::POST, &format!("{session}/prompts"), long, StatusCode::ACCEPTED),
        (Method::GET, &format!("{session}/diff"), String::new(), StatusCode::OK),
        (Method::PUT, "/v1/repositories/demo", String::new(), StatusCode::OK),
        (Method::GET, "/v1/repositories", String::new(), StatusCode::OK),
        (Method::GET, "/v1/pull-requests", String::new(), StatusCode::OK),
        (Method::GET, "/v1/health", String::new(), StatusCode::OK),
        (Method::GET, "/v1/plugins", String::new(), StatusCode::OK),
    ] {
        let (status, value) = host.ask(method, path, &body).await;
        assert_eq!(status, expected, "{path}: {value}");
    }
}

#[tokio::test]
async fn a_blob_is_nothing_that_a_browser_shows() {
    let host = TestHost::new();
    let path = format!("/v1/sessions/{SESSION}/blobs/sha256:{}", "0".repeat(64));
    let response = host.send(admitted(Method::GET, &path).body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/octet-stream");
    assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(response.headers()[header::CONTENT_DISPOSITION], "attachment");
}
