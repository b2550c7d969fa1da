//! What is documented is served, and nothing else is.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use ostler_protocol::{ErrorCode, api};
use serde_json::{Value, json};

use super::{document, resolve};
use crate::api::ApiLimits;
use crate::api::tests::fake::*;

const METHODS: [Method; 7] =
    [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH, Method::OPTIONS, Method::TRACE];

/// A path of the document with the parameters that the host in memory knows.
fn filled(path: &str) -> String {
    path.replace("{session}", SESSION)
        .replace("{repository}", "demo")
        .replace("{digest}", &format!("sha256:{}", "0".repeat(64)))
        .replace("{pull_request}", "pr_01jd3kq4v5w6x7y8z9a0b1c2d3")
}

#[tokio::test]
async fn every_documented_operation_is_served_and_no_other_method_is() {
    let host = TestHost::new();
    let document = document();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            let documented = item.get(method.as_str().to_ascii_lowercase());
            let response = host.send(admitted(method.clone(), &filled(path)).body(Body::empty()).unwrap()).await;
            let status = response.status();
            let Some(operation) = documented else {
                assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path} is served and not documented");
                continue;
            };
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path} is documented and not served");
            let described = &operation["responses"][status.as_str()];
            // The host in memory cannot stop a turn.
            assert!(
                described.is_object() || status == 503,
                "{method} {path} answers {status}, which is not documented"
            );
            assert!(response.headers().contains_key("x-request-id"), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_host_serves_the_document_to_those_who_hold_the_token() {
    let host = TestHost::new();
    let response = host.send(admitted(Method::GET, "/v1/openapi.json").body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(answer(response).await, (StatusCode::OK, document()));
    let request = axum::http::Request::builder().uri("/v1/openapi.json").header(header::HOST, "localhost");
    assert_eq!(host.send(request.body(Body::empty()).unwrap()).await.status(), StatusCode::UNAUTHORIZED);
}

/// Every operation with its method and path.
fn operations(document: &Value) -> Vec<(String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().unwrap();
        item.iter().map(move |(method, operation)| (format!("{method} {path}"), operation.clone()))
    });
    all.collect()
}

#[test]
fn every_operation_is_described_in_full() {
    let document = document();
    let mut names = BTreeSet::new();
    for (which, operation) in operations(&document) {
        for field in ["operationId", "summary", "description"] {
            assert!(operation[field].as_str().is_some_and(|text| !text.is_empty()), "{which} has no {field}");
        }
        assert!(names.insert(operation["operationId"].to_string()), "{which}: the operationId is taken");
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{which} has one tag");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{which}: {}", parameter["name"]);
            let required = parameter["in"] == "path";
            assert_eq!(parameter["required"], required, "{which}: {}", parameter["name"]);
            assert!(!required || parameter["example"].is_string(), "{which}: {} has no example", parameter["name"]);
        }
        for status in ["401", "403", "500"] {
            assert!(operation["responses"][status].is_object(), "{which} lacks {status}");
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = resolve(&document, response);
            assert!(response["headers"]["x-request-id"].is_object(), "{which} {status}");
            assert_eq!(response["headers"]["retry-after"].is_object(), status == "429", "{which} {status}");
            for (kind, content) in response["content"].as_object().into_iter().flatten() {
                let schema = &content["schema"];
                assert!(schema.is_object(), "{which} {status} {kind} has no schema");
                let error = schema["$ref"] == "#/components/schemas/ApiError";
                assert_eq!(error, !status.starts_with('2'), "{which} {status}: errors have one shape");
            }
        }
    }
}

#[test]
fn the_document_lists_every_code_and_refers_only_to_what_it_holds() {
    let document = document();
    let codes = &document["components"]["schemas"]["ErrorCode"]["enum"];
    let expected: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(codes, &json!(expected));
    let text = document.to_string();
    let held = document["components"]["schemas"].as_object().unwrap();
    let mut used = BTreeSet::new();
    for part in text.split("#/components/schemas/").skip(1) {
        used.insert(part.split('"').next().unwrap().to_owned());
    }
    for name in &used {
        assert!(held.contains_key(name), "the schema {name} is missing");
    }
    for name in ["Delta", "CaughtUp"] {
        used.insert(name.to_owned());
    }
    let unused: Vec<&String> = held.keys().filter(|name| !used.contains(*name)).collect();
    assert_eq!(unused, Vec::<&String>::new());
}

#[test]
fn the_limits_in_the_document_are_those_that_are_checked() {
    let document = document();
    let parameter = |path: &str, name: &str| {
        let parameters = &document.pointer(&format!("/paths/{}/parameters", path.replace("/v1", "~1v1"))).unwrap();
        parameters.as_array().unwrap().iter().find(|parameter| parameter["name"] == name).unwrap()["schema"].clone()
    };
    for list in ["sessions", "repositories", "pull-requests"] {
        let limit = parameter(&format!("/v1~1{list}/get"), "limit");
        assert_eq!((&limit["minimum"], &limit["maximum"]), (&json!(1), &json!(api::MAX_PAGE)), "{list}");
    }
    let events = "/v1~1sessions~1{session}~1events/get";
    assert_eq!(parameter(events, "limit")["maximum"], api::MAX_EVENTS);
    for post in ["/v1~1sessions/post", "/v1~1sessions~1{session}~1prompts/post"] {
        let key = parameter(post, "Idempotency-Key");
        assert_eq!((&key["minLength"], &key["maxLength"]), (&json!(1), &json!(api::MAX_IDEMPOTENCY_KEY)), "{post}");
    }
    let schema = |name: &str, field: &str| document["components"]["schemas"][name]["properties"][field].clone();
    assert_eq!(schema("SubmitPrompt", "text")["maxLength"], api::MAX_PROMPT);
    assert_eq!(schema("CreateSession", "branch")["maxLength"], api::MAX_BRANCH);
    assert_eq!(schema("CreateSession", "model")["maxLength"], api::MAX_MODEL);
    let heartbeat = format!("every {} seconds", ApiLimits::default().heartbeat.as_secs());
    let words = document.pointer(&format!("/paths/{}/description", events.replace("/v1", "~1v1"))).unwrap();
    assert!(words.as_str().unwrap().contains(&heartbeat), "{words}");
}
