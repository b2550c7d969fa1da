//! A key is nowhere but in the request that carries it: not in what is shown, not in an error, not in `Debug`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Given, Room};
use crate::config::Origins;

const CANARY: &str = "sk-canary-4711";

#[test]
fn keys_of_variables_and_files_are_shown_as_where_they_come_from() {
    let room = Room::new();
    let key = room.path("key");
    fs::write(&key, CANARY).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let file = format!("[providers.anthropic]\napi_key_file = \"{}\"\n", key.display());
    let variables = [("OPENAI_API_KEY", CANARY)];
    let loaded = room.load(Given { file: Some(&file), variables: &variables, ..Given::default() }).unwrap();
    let host = loaded.host("/run".into()).unwrap();
    assert!(host.providers.values().all(|provider| provider.api_key.as_ref().unwrap().reveal() == CANARY));
    let json = loaded.to_json().to_string();
    let shown = loaded.show(Origins::Shown);
    for text in [&shown, &loaded.show(Origins::Hidden), &json, &format!("{loaded:#?} {host:#?}")] {
        assert!(!text.contains("canary"), "{text}");
    }
    assert!(shown.contains("# api_key: set, from the environment variable OPENAI_API_KEY\n"), "{shown}");
    assert!(shown.contains(&format!("# api_key: from the file {}\n", key.display())), "{shown}");
    assert!(json.contains("\"(set, from the environment variable OPENAI_API_KEY)\""), "{json}");
}

#[test]
fn a_key_in_the_wrong_place_is_refused_and_not_repeated() {
    for file in [
        "[providers.openai]\napi_key = \"CANARY\"",
        "[providers.openai]\napikey = \"CANARY\"",
        "[providers.openai]\nkey = [\"CANARY\"]",
        "[providers.openai]\napi_key_env = \"CANARY\"",
        "[providers.openai]\napi_key_file = \"CANARY\"",
        "[providers.openai]\nbase_url = \"https://user:CANARY@host/\"",
        "[providers.openai]\nbase_url = \"https://CANARY@host/\"",
        "[providers.openai]\nbase_url = \"https://host/?key=CANARY\"",
        "[providers.openai]\nbase_url = \"https://host/#CANARY\"",
        "[providers.openai]\nbase_url = \"CANARY\"",
        "[providers.openai]\napi_key_env = CANARY",
        "OPENAI_API_KEY = \"CANARY\"",
    ] {
        let room = Room::new();
        let file = file.replace("CANARY", CANARY);
        let error = room.load(Given { file: Some(&file), ..Given::default() }).unwrap_err();
        for text in [room.told(&error), format!("{error:?} {error}")] {
            assert!(!text.contains("canary"), "{file}: {text}");
            assert!(text.contains("config.toml"), "{file}: {text}");
        }
    }
    let variables = [("OPENAI_API_KEY", "sk-canary two"), ("OPENAI_BASE_URL", "https://sk-canary@host")];
    let room = Room::new();
    let error = room.load(Given { variables: &variables, ..Given::default() }).unwrap_err();
    let told = room.told(&error);
    assert!(!told.contains("canary") && told.contains("OPENAI_API_KEY") && told.contains("OPENAI_BASE_URL"), "{told}");
}

#[test]
fn an_inline_key_is_told_why_and_what_to_do_instead() {
    let room = Room::new();
    let file = format!("[providers.openai]\napi_key = \"{CANARY}\"");
    let told = room.told(&room.load(Given { file: Some(&file), ..Given::default() }).unwrap_err());
    insta::assert_snapshot!(told);
}
