//! Lists that come in pages.

use axum::http::StatusCode;
use serde_json::Value;

use super::fake::*;

fn names(page: &Value) -> Vec<String> {
    let rows = page["repositories"].as_array().unwrap();
    rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_reader_of_pages_sees_what_was_there_once_though_the_list_changes_meanwhile() {
    let host = TestHost::new();
    host.fake.names.lock().unwrap().extend(["b", "d", "f", "h"].map(str::to_owned));
    let mut path = "/v1/repositories?limit=2".to_owned();
    let mut seen = Vec::new();
    loop {
        let (status, page) = host.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        seen.extend(names(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/repositories?limit=2&cursor={cursor}");
        // One before the page that was read, and the one that it ended with goes.
        host.fake.names.lock().unwrap().insert("a".to_owned());
        host.fake.names.lock().unwrap().remove("d");
    }
    assert_eq!(seen, ["b", "d", "f", "h"]);
}

#[tokio::test]
async fn a_page_holds_fifty_unless_it_is_told_otherwise() {
    let host = TestHost::new();
    host.fake.names.lock().unwrap().extend((0..300).map(|number| format!("r{number:03}")));
    for (query, expected) in [("", 50), ("?limit=200", 200), ("?limit=1", 1)] {
        let (_, page) = host.get(&format!("/v1/repositories{query}")).await;
        assert_eq!(names(&page).len(), expected, "{query}");
        assert!(page["next_cursor"].is_string(), "{query}");
    }
}

#[tokio::test]
async fn what_is_no_page_is_refused_in_every_list() {
    let host = TestHost::new();
    host.fake.names.lock().unwrap().extend(["a", "b"].map(str::to_owned));
    let (_, page) = host.get("/v1/repositories?limit=1").await;
    let foreign = format!("cursor={}", page["next_cursor"].as_str().unwrap());
    for list in ["repositories", "sessions", "pull-requests"] {
        for query in ["limit=0", "limit=201", "limit=-1", "limit=x", "cursor=", "cursor=b", "colour=red", &foreign] {
            if list == "repositories" && query == foreign {
                continue;
            }
            let (status, error) = host.get(&format!("/v1/{list}?{query}")).await;
            assert_eq!((status, &error["code"]), (StatusCode::BAD_REQUEST, &"bad_request".into()), "{list} {query}");
        }
    }
    let (_, error) = host.get("/v1/sessions?cursor=b").await;
    assert_eq!(
        error["hint"],
        "send the `next_cursor` of the page before, or leave it out to begin with the first page"
    );
}

#[tokio::test]
async fn sessions_are_filtered_by_repository_and_status() {
    let host = TestHost::new();
    for (query, expected) in [("repository=demo&status=idle", 1), ("repository=other", 0), ("status=working", 0)] {
        let (_, page) = host.get(&format!("/v1/sessions?{query}")).await;
        assert_eq!(page["sessions"].as_array().unwrap().len(), expected, "{query}");
    }
    for query in ["status=bored", "repository=.."] {
        assert_eq!(host.get(&format!("/v1/sessions?{query}")).await.0, StatusCode::BAD_REQUEST, "{query}");
    }
}
