//! The words for everything that can be wrong, as a person reads them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Given, Room};

/// What is told about a file.
fn about(file: &str) -> String {
    let room = Room::new();
    let error = room.load(Given { file: Some(file), ..Given::default() }).unwrap_err();
    room.told(&error)
}

#[test]
fn unknown_keys_are_told_with_the_nearest() {
    let told = about(
        r#"
memory = "2G"
plugin = { paths = [] }
[host]
lsten = "127.0.0.1:1"
quux = 1
[providers.openai]
base_ulr = "http://x"
url = "http://x"
[providers.openai.models.gpt]
context_token = 5
[sandbox.limits]
pids = 7
"#,
    );
    insta::assert_snapshot!(told);
}

#[test]
fn wrong_values_are_told_all_at_once() {
    let told = about(
        r#"
[host]
data = 7
listen = "everywhere"
allowed_hosts = ["fine", 3, "b:80", "http://c"]
allowed_origins = "https://x"
[agent]
model = "gpt"
[sandbox]
image = ""
memory = "1M"
pids = 7
cpus = true
[plugins]
paths = [["a"]]
[providers.openai]
idle_timeout = 120
answer_timeout = "2 hours"
max_attempts = 0x99
[log]
filter = "ostler=loud"
"#,
    );
    insta::assert_snapshot!(told);
}

#[test]
fn sections_must_be_sections_and_names_must_be_names() {
    let told = about(
        r#"
sandbox = "big"
host = 1979-05-27
[[plugins]]
paths = []
[providers.Local]
kind = "openai"
[providers.openai]
models = 3
[providers.anthropic.models."two words"]
"#,
    );
    insta::assert_snapshot!(told);
}

#[test]
fn providers_must_hold_together() {
    let told = about(
        r#"
agent.model = "opnai/gpt"
[providers.local]
max_attempts = 3
[providers.half]
kind = "opena"
base_url = "http://127.0.0.1:8000/v1"
[providers.play]
kind = "scripted"
[providers.anthropic]
kind = "openai"
script = "x.toml"
[providers.scripted]
base_url = "http://x"
"#,
    );
    insta::assert_snapshot!(told);
}

#[test]
fn wrong_rules_of_egress_are_told_with_what_would_be_right() {
    let told = about(
        r#"
[egress]
preset = ["apt"]
presets = ["apt", "pypi"]
allow = ["*", "https://a.example/", "a.example:443", "git.ostler.internal", "10.0.0.0/8", 7]
bytes_up = "1K"
[egress.hosts."a b"]
[egress.hosts."*.a.example"]
addresses = ["10.0.0.1"]
[egress.hosts."a.example"]
port = 443
ports = 443
tcp_ports = ["22", 0, 70000]
methods = ["get", "CONNECT"]
paths = ["debian", "/a/../b", "/*"]
private = ["10.0.0.1/8", "10.0.0.0"]
"#,
    );
    insta::assert_snapshot!(told);
}

#[test]
fn what_is_no_toml_is_told_with_its_place() {
    let files = [
        "[host\ndata = \"x\"\n",
        "[host]\ndata = /srv\n",
        "a = 1\na = 2\n",
        "[host]\ndata = \"never ends\n",
        "ä = \"",
        "listen == 3",
        "\u{feff}[host]\nü",
    ];
    let told: Vec<String> = files.iter().map(|file| format!("{file:?}\n{}\n", about(file))).collect();
    let told = told.join("\n");
    insta::assert_snapshot!(told);
}

#[test]
fn nothing_is_told_to_be_missing_because_something_else_is_wrong() {
    let room = Room::new();
    let told =
        |file, variables| room.told(&room.load(Given { file: Some(file), variables, flags: vec![] }).unwrap_err());
    let told = [
        told("[providers.local\n", &[("OSTLER_MODEL", "local/x")]),
        told("[providers.openai]\nmax_attempts = 3", &[("OPENAI_BASE_URL", "x")]),
        told("[providers.local]\nkind = 3\nbase_url = 4", &[]),
    ];
    let told = told.join("\n\n");
    insta::assert_snapshot!(told);
}

#[test]
fn a_file_full_of_problems_is_told_in_part() {
    let told = about(&(0..30).map(|number| format!("key{number:02} = 1\n")).collect::<String>());
    assert_eq!(told.matches("unknown key").count(), 20, "{told}");
    assert!(told.ends_with("hint: 10 more problems are not shown; repair these first"), "{told}");
}

#[test]
fn the_environment_and_flags_are_named() {
    let room = Room::new();
    let variables = [
        ("OSTLER_LISTEN", "x"),
        ("OSTLER_MODEL", "gpt"),
        ("OSTLER_LOG", "ostler=loud"),
        ("OPENAI_BASE_URL", "127.0.0.1:8000"),
        ("ANTHROPIC_API_KEY", "two words"),
    ];
    let mut told = room.told(&room.load(Given { variables: &variables, ..Given::default() }).unwrap_err());
    let value = crate::config::Value::Text("lcal/x".into());
    let flags = vec![crate::config::Flag { key: "agent.model", value }];
    let file = "[providers.local]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1\"";
    let error = room.load(Given { file: Some(file), flags, ..Given::default() }).unwrap_err();
    told.push_str(&format!("\n{}", room.told(&error)));
    insta::assert_snapshot!(told);
}

#[test]
fn a_file_with_a_key_must_be_private_and_hold_one() {
    let mut told = String::new();
    for (name, content, mode) in [
        ("open", "sk-canary", 0o644),
        ("group", "sk-canary", 0o640),
        ("empty", " \n", 0o600),
        ("lines", "sk-canary\nsk-canary\n", 0o600),
        ("foreign", "sk-cänary", 0o600),
        ("missing", "", 0),
        ("folder", "", 0o700),
    ] {
        let room = Room::new();
        let path = room.path(name);
        match name {
            "missing" => {}
            "folder" => fs::create_dir(&path).unwrap(),
            _ => {
                fs::write(&path, content).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        let file = format!("[providers.openai]\napi_key_file = \"{}\"\n", path.display());
        let loaded = room.load(Given { file: Some(&file), ..Given::default() }).unwrap();
        told.push_str(&format!("{}\n", room.told(&loaded.host("/run".into()).unwrap_err())));
    }
    insta::assert_snapshot!(told);
}

#[test]
fn a_file_that_is_too_long_or_not_utf8_is_refused() {
    let room = Room::new();
    let long = "#".repeat((1 << 20) + 1);
    let mut told = room.told(&room.load(Given { file: Some(&long), ..Given::default() }).unwrap_err());
    fs::write(room.path("config.toml"), b"a = \"\xff\"").unwrap();
    told.push_str(&format!("\n{}", room.told(&room.load(Given::default()).unwrap_err())));
    insta::assert_snapshot!(told);
}
