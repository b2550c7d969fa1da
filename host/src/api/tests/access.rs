//! Who gets in.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::fake::*;

const PATHS: [&str; 4] = ["/v1/health", "/v1/sessions", "/git/demo.git/info/refs", "/no/such/path"];

async fn status(headers: &[(&str, &str)], path: &str) -> StatusCode {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    TestHost::new().send(request.body(Body::empty()).unwrap()).await.status()
}

#[tokio::test]
async fn nothing_is_answered_without_the_token() {
    let wrong = format!("Bearer {}", TOKEN.replace('0', "f"));
    let basic = format!("Basic {}", STANDARD.encode(format!("git:{wrong}")));
    for path in PATHS {
        for headers in [
            vec![("host", "localhost")],
            vec![("host", "localhost"), ("authorization", wrong.as_str())],
            vec![("host", "localhost"), ("authorization", basic.as_str())],
            vec![("host", "localhost"), ("authorization", TOKEN)],
            vec![("host", "localhost"), ("authorization", "")],
        ] {
            assert_eq!(status(&headers, path).await, StatusCode::UNAUTHORIZED, "{path} {headers:?}");
        }
        assert_eq!(status(&[("host", "localhost")], &format!("{path}?token={TOKEN}")).await, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn git_may_send_the_token_as_a_password_and_only_git() {
    let basic = format!("Basic {}", STANDARD.encode(format!("anyone:{TOKEN}")));
    let headers = [("host", "localhost"), ("authorization", basic.as_str())];
    assert_eq!(status(&headers, "/git/demo.git/info/refs").await, StatusCode::OK);
    assert_eq!(status(&headers, "/v1/health").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused_even_with_the_token() {
    let bearer = format!("Bearer {TOKEN}");
    let token = ("authorization", bearer.as_str());
    for path in PATHS {
        for headers in [
            vec![token],
            vec![token, ("host", "evil.example")],
            vec![token, ("host", "localhost.evil.example:7878")],
            vec![token, ("host", "localhost"), ("origin", "http://evil.example")],
            vec![token, ("host", "localhost"), ("origin", "null")],
            vec![token, ("host", "localhost"), ("sec-fetch-site", "cross-site")],
        ] {
            assert_eq!(status(&headers, path).await, StatusCode::FORBIDDEN, "{path} {headers:?}");
        }
    }
    assert_eq!(status(&[token, ("host", "127.0.0.1:7878")], "/v1/health").await, StatusCode::OK);
}

#[tokio::test]
async fn a_preflight_is_never_answered_with_permission() {
    let host = TestHost::new();
    let preflight = Request::builder()
        .method(Method::OPTIONS)
        .uri("/v1/sessions")
        .header(header::HOST, "localhost")
        .header(header::ORIGIN, "http://evil.example")
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
    let response = host.send(preflight.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(!response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
}

#[tokio::test]
async fn git_hears_the_words_of_the_forge() {
    let host = TestHost::new();
    let request = admitted(Method::POST, "/git/demo.git/git-receive-pack");
    let (status, body) = answer(host.send(request.body(Body::empty()).unwrap()).await).await;
    assert_eq!((status, body.as_str()), (StatusCode::FORBIDDEN, Some("not that branch")));
}
