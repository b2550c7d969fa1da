//! What a right configuration gives, as whole values.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::{Given, Room};
use crate::config::{
    ByteSize, ConfigError, Cpus, HostConfig, Inputs, KEYS, LogFormat, LogSettings, ModelSettings, Origins,
    ProviderKind, ProviderSettings, SandboxLimits, Secret,
};
use crate::egress::{Budget, Policy, Rule};

fn defaults() -> HostConfig {
    let built_in = [
        ("anthropic".to_owned(), ProviderSettings::new(ProviderKind::Anthropic)),
        ("openai".to_owned(), ProviderSettings::new(ProviderKind::OpenAi)),
    ];
    HostConfig {
        data: "/var/lib/ostler".into(),
        runtime: "/run".into(),
        listen: "127.0.0.1:7878".parse().unwrap(),
        allowed_hosts: Vec::new(),
        allowed_origins: Vec::new(),
        model: None,
        script: None,
        providers: BTreeMap::from(built_in),
        image: "base".into(),
        plugins: Vec::new(),
        limits: SandboxLimits {
            memory: ByteSize(2 << 30),
            pids: 1024,
            cpus: Cpus { millis: 2000 },
            cpu_weight: 100,
            io_weight: 100,
            disk: ByteSize(20 << 30),
            files: 2_000_000,
        },
        egress: Policy::default(),
        certificates: None,
        log: LogSettings { filter: "info".into(), format: LogFormat::Text },
        otlp_endpoint: None,
    }
}

#[test]
fn without_a_file_the_defaults_hold() {
    let loaded = Room::new().load(Given::default()).unwrap();
    assert_eq!(loaded.host("/run".into()).unwrap(), defaults());
}

/// The rules of the file below.
fn egress() -> Policy {
    let rule = |host: &str, origin: &str| Rule::new(host.parse().unwrap(), origin);
    let mirror = Rule {
        ports: vec![80, 8080],
        tcp_ports: vec![22],
        methods: vec!["GET".into()],
        paths: vec!["/debian/".into()],
        private: vec!["10.0.0.0/8".parse().unwrap()],
        addresses: vec!["10.0.0.7".parse().unwrap()],
        ..rule("mirror.example", "egress.hosts.\"mirror.example\"")
    };
    let rules = vec![
        mirror,
        rule("example.org", "egress.allow example.org"),
        rule("*.example.org", "egress.allow *.example.org"),
        rule("pypi.org", "preset pip"),
        rule("files.pythonhosted.org", "preset pip"),
    ];
    Policy { rules, budget: Budget { up: Some(16 << 20), down: Some(1 << 30), total: Some(2 << 30) } }
}

#[test]
fn every_key_of_the_file_reaches_its_field() {
    let room = Room::new();
    let key = room.path("key");
    fs::write(&key, "  sk-from-file\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    let text = format!(
        r#"
        host = {{ data = "/d", listen = "[::1]:1", allowed_hosts = ["a.example"], allowed_origins = ["https://a.example"] }}
        agent.model = "local/org/qwen-3.5:coder"
        [sandbox]
        image = "other"
        memory = "512MiB"
        pids = 1_000
        cpus = 1.5
        cpu_weight = 50
        io_weight = 200
        disk = "5G"
        files = 4000
        [egress]
        presets = ["pip"]
        allow = ["Example.ORG.", "*.example.org"]
        bytes_up = "16M"
        bytes_down = "1G"
        bytes_total = "2G"
        certificates = "own.pem"
        [egress.hosts."Mirror.example"]
        ports = [80, 8_080]
        tcp_ports = [22]
        methods = ["GET"]
        paths = ["/debian/"]
        private = ["10.0.0.0/8"]
        addresses = ["10.0.0.7"]
        [plugins]
        paths = ["here/policy", "/there"]
        [providers.openai]
        base_url = "https://proxy.example/v1/"
        [providers.local]
        kind = "anthropic"
        base_url = "http://127.0.0.1:8000"
        api_key_file = "{}"
        max_attempts = 1
        idle_timeout = "500s"
        answer_timeout = "1h"
        [providers.local.models."org/qwen-3.5:coder"]
        context_tokens = 10
        max_output_tokens = 5
        [providers.scripted]
        script = "script.toml"
        [log]
        filter = "debug"
        format = "json"
        [telemetry]
        otlp_endpoint = "http://127.0.0.1:4318/"
        "#,
        key.display()
    );
    let loaded = room.load(Given { file: Some(&text), ..Given::default() }).unwrap();
    let mut expected = defaults();
    expected.data = "/d".into();
    expected.listen = "[::1]:1".parse().unwrap();
    expected.allowed_hosts = vec!["a.example".into()];
    expected.allowed_origins = vec!["https://a.example".into()];
    expected.model = Some("local/org/qwen-3.5:coder".into());
    expected.script = Some(room.path("script.toml"));
    expected.image = "other".into();
    expected.limits = SandboxLimits {
        memory: ByteSize(512 << 20),
        pids: 1000,
        cpus: Cpus { millis: 1500 },
        cpu_weight: 50,
        io_weight: 200,
        disk: ByteSize(5 << 30),
        files: 4000,
    };
    expected.plugins = vec![room.path("here/policy"), "/there".into()];
    expected.egress = egress();
    expected.certificates = Some(room.path("own.pem"));
    expected.log = LogSettings { filter: "debug".into(), format: LogFormat::Json };
    expected.otlp_endpoint = Some("http://127.0.0.1:4318".into());
    expected.providers.get_mut("openai").unwrap().base_url = "https://proxy.example/v1".into();
    let known = ModelSettings { context_tokens: Some(10), max_output_tokens: Some(5) };
    let local = ProviderSettings {
        kind: ProviderKind::Anthropic,
        base_url: "http://127.0.0.1:8000".into(),
        api_key: Some(Secret::new("sk-from-file")),
        models: BTreeMap::from([("org/qwen-3.5:coder".to_owned(), known)]),
        max_attempts: 1,
        idle_timeout: Duration::from_secs(500),
        answer_timeout: Duration::from_secs(3600),
    };
    expected.providers.insert("local".into(), local);
    assert_eq!(loaded.host("/run".into()).unwrap(), expected);
    // Every key of the table was given, so none is without a field.
    for key in KEYS.iter().filter(|key| key.path != "providers.*.api_key_env") {
        let name = key.path.rsplit('.').next().unwrap();
        assert!(text.contains(&format!("{name} = ")), "the file of this test lacks `{}`", key.path);
    }
}

#[test]
fn what_is_shown_says_the_same_when_it_is_read() {
    let room = Room::new();
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/config.toml")).unwrap();
    let first = room.load(Given { file: Some(&text), ..Given::default() }).unwrap();
    let shown = first.show(Origins::Shown);
    let again = room.load(Given { file: Some(&shown), ..Given::default() }).unwrap();
    assert_eq!(again.show(Origins::Hidden), first.show(Origins::Hidden));
}

#[test]
fn a_script_without_a_chosen_model_is_played() {
    let room = Room::new();
    let model = |file, variables| {
        room.load(Given { file: Some(file), variables, flags: Vec::new() }).unwrap().host("/run".into()).unwrap().model
    };
    let script = "[providers.scripted]\nscript = \"s.toml\"\n";
    assert_eq!(model(script, &[]).as_deref(), Some("scripted/demo"));
    assert_eq!(model(script, &[("OSTLER_MODEL", "openai/x")]).as_deref(), Some("openai/x"));
    assert_eq!(model("", &[]), None);
}

#[test]
fn keys_come_from_the_variable_first_and_the_file_is_then_not_even_read() {
    let room = Room::new();
    let file = "[providers.openai]\napi_key_env = \"WORK_KEY\"\napi_key_file = \"/nonexistent/key\"\n";
    let variables = [("WORK_KEY", " sk-work\n"), ("OPENAI_API_KEY", "sk-other"), ("ANTHROPIC_API_KEY", "sk-a")];
    let host = room.load(Given { file: Some(file), variables: &variables, flags: Vec::new() }).unwrap();
    let providers = host.host("/run".into()).unwrap().providers;
    assert_eq!(providers["openai"].api_key, Some(Secret::new("sk-work")));
    assert_eq!(providers["anthropic"].api_key, Some(Secret::new("sk-a")));
}

#[test]
fn a_file_that_was_named_must_be_there_and_the_flag_names_it_before_the_environment() {
    let room = Room::new();
    fs::write(room.path("flag.toml"), "[sandbox]\nimage = \"flag\"").unwrap();
    fs::write(room.path("variable.toml"), "[sandbox]\nimage = \"variable\"").unwrap();
    let load = |file: Option<&str>, variable: Option<&str>| {
        let variables =
            |name: &str| variable.filter(|_| name == "OSTLER_CONFIG").map(|value| OsString::from(room.path(value)));
        let inputs = Inputs {
            file: file.map(Into::into),
            default_file: room.path("default.toml"),
            is_root: true,
            variables: &variables,
            flags: Vec::new(),
            folder: room.folder.path().to_owned(),
        };
        inputs.load().and_then(|loaded| loaded.host("/run".into())).map(|host| host.image)
    };
    assert_eq!(load(Some("flag.toml"), Some("variable.toml")).unwrap(), "flag");
    assert_eq!(load(None, Some("variable.toml")).unwrap(), "variable");
    assert_eq!(load(None, None).unwrap(), "base");
    for missing in [load(Some("nope.toml"), None), load(None, Some("nope.toml"))] {
        let error = missing.unwrap_err();
        assert!(matches!(&error, ConfigError::Read { path, .. } if path.ends_with("nope.toml")), "{error}");
    }
}

#[test]
fn an_ordinary_user_has_folders_of_its_own() {
    let room = Room::new();
    fs::create_dir_all(room.path(".config/ostler")).unwrap();
    fs::write(room.path("default.toml"), "[sandbox]\nimage = \"machine\"").unwrap();
    let load = |is_root: bool, variables: &[(&str, String)]| {
        let variables = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        let default_file = room.path("default.toml");
        let inputs =
            Inputs { file: None, default_file, is_root, variables: &variables, flags: Vec::new(), folder: "/x".into() };
        let host = inputs.load().and_then(|loaded| loaded.host("/run".into())).unwrap();
        (host.data.display().to_string(), host.image)
    };
    let home = ("HOME", room.folder.path().display().to_string());
    let own_data = room.path(".local/share/ostler").display().to_string();
    assert_eq!(load(true, std::slice::from_ref(&home)), ("/var/lib/ostler".into(), "machine".into()));
    assert_eq!(load(false, std::slice::from_ref(&home)), (own_data.clone(), "machine".into()));
    fs::write(room.path(".config/ostler/config.toml"), "[sandbox]\nimage = \"mine\"").unwrap();
    assert_eq!(load(false, std::slice::from_ref(&home)), (own_data, "mine".into()));
    assert_eq!(load(true, std::slice::from_ref(&home)).1, "machine", "root reads no file of another user");
    let [elsewhere, said] = [("XDG_DATA_HOME", "/srv/me".to_owned()), ("OSTLER_DATA", "/said".to_owned())];
    assert_eq!(load(false, &[home.clone(), elsewhere.clone()]).0, "/srv/me/ostler");
    assert_eq!(load(false, &[home.clone(), elsewhere, said]).0, "/said");
    // A relative path in such a variable is to be ignored, says the specification.
    assert_eq!(
        load(false, &[home, ("XDG_DATA_HOME", "here".to_owned())]).0,
        room.path(".local/share/ostler").display().to_string()
    );
    assert_eq!(load(false, &[]).0, "/var/lib/ostler", "who has no home");
}
