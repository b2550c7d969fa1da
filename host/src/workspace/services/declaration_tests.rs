//! Declarations, good and bad.

use proptest::prelude::*;

use super::*;

fn one(text: &str) -> Service {
    let mut services = parse(text.as_bytes()).unwrap();
    assert_eq!(services.len(), 1);
    services.remove(0)
}

fn error(text: &str) -> String {
    parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_command_is_enough_and_the_rest_has_defaults() {
    let expected = Service {
        name: "web".into(),
        command: "npm start".into(),
        ready: Ready::Running,
        ready_within: Duration::from_secs(60),
        restart: Restart::OnFailure,
        after: Vec::new(),
        environment: Vec::new(),
        stop_signal: 15,
        stop_grace: Duration::from_secs(5),
    };
    assert_eq!(one("[web]\ncommand = \"npm start\""), expected);
    assert_eq!(parse(b"").unwrap(), []);
}

#[test]
fn every_key_is_read() {
    let text = "[database]\ncommand = \"postgres\"\n[web]\ncommand = \"run\"\nready = { http = \"http://localhost:80/a?b\", status = 204 }\n\
                ready_within = \"90s\"\nrestart = \"always\"\nafter = [\"database\", \"database\"]\n\
                environment = { B = \"2\", A = \"1\" }\nstop_signal = \"SIGINT\"\nstop_grace = \"500ms\"\n";
    let services = parse(text.as_bytes()).unwrap();
    let address = Address { authority: "localhost:80".into(), port: 80, path: "/a?b".into(), status: Some(204) };
    let expected = Service {
        name: "web".into(),
        command: "run".into(),
        ready: Ready::Http(address),
        ready_within: Duration::from_secs(90),
        restart: Restart::Always,
        after: vec!["database".into()],
        environment: vec![("A".into(), "1".into()), ("B".into(), "2".into())],
        stop_signal: 2,
        stop_grace: Duration::from_millis(500),
    };
    assert_eq!(services[1], expected);
    assert_eq!(one("[a]\ncommand = \"x\"\nready.port = 5432").ready, Ready::Port(5432));
    assert_eq!(one("[a]\ncommand = \"x\"\nready = { command = \"true\" }").ready, Ready::Command("true".into()));
}

#[test]
fn what_is_wrong_is_named_with_what_would_be_right() {
    let web = |line: &str| format!("[web]\ncommand = \"x\"\n{line}");
    let table = [
        ("[web".to_owned(), "line 1"),
        (web("= 3"), "line 3"),
        ("[Web]\ncommand = \"x\"".into(), "`Web` is not a name"),
        ("web = 3".into(), "`web` is no service; a service is a table such as `[web]`"),
        ("[web]".into(), "`web` has no `command`"),
        ("[web]\ncommand = 3".into(), "`command` of service `web` is a number; write text in quotes"),
        ("[web]\ncommand = \" \"".into(), "`command` of service `web` has an empty command"),
        ("[web]\ncomand = \"x\"".into(), "unknown key `comand`; did you mean `command`?"),
        (web("volumes = []"), "unknown key `volumes`; there are command, ready"),
        (web("restart = \"sometimes\""), "`restart` of service `web` is `sometimes`; take `never`"),
        (web("ready_within = \"soon\""), "`ready_within` of service `web` is `soon`; take a time with its unit"),
        (web("ready_within = \"11m\""), "take more than 0 and at most `10m`"),
        (web("stop_grace = \"0s\""), "take more than 0 and at most `30s`"),
        (web("stop_signal = \"SIGKILL\""), "`stop_signal` of service `web` is `SIGKILL`; take one of SIGHUP"),
        (web("ready = { port = 0 }"), "has the port 0; ports are 1 to 65535"),
        (web("ready = { port = 70000 }"), "`ready` of service `web` has the port 70000; ports are 1 to 65535"),
        (web("ready = { port = 1, command = \"true\" }"), "is not one way of being ready"),
        (web("ready = {}"), "is not one way of being ready"),
        (web("ready = { prot = 1 }"), "unknown field `prot`"),
        (web("ready = { http = \"https://127.0.0.1/\" }"), "is not one of the sandbox itself"),
        (web("ready = { http = \"http://example.org/\" }"), "is not one of the sandbox itself"),
        (web("ready = { http = \"http://me@127.0.0.1/\" }"), "is not one of the sandbox itself"),
        (web("ready = { http = \"http://127.0.0.1/\", status = 99 }"), "has the status 99"),
        (web("environment = { \"A B\" = \"1\" }"), "has the variable `A B`"),
        (web("environment = { A = 1 }"), "is no table of texts"),
        (web("environment = { A = \"\\u0000\" }"), "has a value of `A` with a zero byte"),
        (web("after = \"database\""), "is no list of names"),
        (
            web("after = [\"databse\"]\n[database]\ncommand = \"y\""),
            "after `databse`, which is not declared; did you mean `database`?",
        ),
        (web("after = [\"web\"]"), "wait for each other: `web` after `web`"),
    ];
    for (text, words) in table {
        let error = error(&text);
        assert!(error.starts_with(FILE) && error.contains(words), "{text}: {error}");
    }
}

#[test]
fn a_cycle_is_named_without_those_that_only_wait_for_it() {
    let service = |name: &str, after: &str| format!("[{name}]\ncommand = \"x\"\nafter = [{after}]\n");
    let text =
        [service("a", "\"b\""), service("b", "\"c\""), service("c", "\"d\""), service("d", "\"b\""), service("e", "")];
    assert_eq!(
        error(&text.concat()),
        format!(
            "{FILE}: services wait for each other: `b` after `c` after `d` after `b`; take one of them out of `after`"
        )
    );
}

#[test]
fn too_much_is_refused() {
    let many: String = (0..=MAX_SERVICES).map(|number| format!("[s{number}]\ncommand = \"x\"\n")).collect();
    assert!(error(&many).contains("declares 17 services; at most 16"), "{}", error(&many));
    let large = vec![b'#'; usize::try_from(MAX_FILE).unwrap() + 1];
    assert_eq!(parse(&large), Err(DeclarationError::TooLarge));
    assert_eq!(parse(b"\xff"), Err(DeclarationError::Encoding));
    let long = format!("[web]\ncommand = \"{}\"", "x".repeat(MAX_COMMAND + 1));
    assert!(error(&long).contains("has a command of 16385 bytes"));
}

#[test]
fn what_an_error_repeats_steers_no_terminal_and_is_short() {
    let long = "\\u001b]0;x\\u0007".repeat(200);
    let error = error(&format!("[web]\ncommand = \"x\"\nrestart = \"{long}\""));
    assert!(error.len() < 2000 && !error.chars().any(char::is_control), "{error:?}");
}

proptest! {
    #[test]
    fn any_bytes_give_services_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    /// Edges from a number to a lower one make no cycle; one more edge back along a path makes one.
    #[test]
    fn every_service_follows_those_that_it_starts_after(
        edges in proptest::collection::vec((1_usize..12, any::<proptest::sample::Index>()), 0..40),
        names in Just((0..12).map(|number| format!("s{number}")).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut after = vec![BTreeSet::new(); 12];
        for (from, to) in edges {
            after[from].insert(to.index(from));
        }
        let text = |after: &[BTreeSet<usize>]| -> String {
            let service = |(number, after): (usize, &BTreeSet<usize>)| {
                let list: Vec<String> = after.iter().map(|to| format!("\"{}\"", names[*to])).collect();
                format!("[{}]\ncommand = \"x\"\nafter = [{}]\n", names[number], list.join(","))
            };
            after.iter().enumerate().map(service).collect()
        };
        let ordered = parse(text(&after).as_bytes()).unwrap();
        prop_assert_eq!(ordered.len(), 12);
        for (position, service) in ordered.iter().enumerate() {
            for name in &service.after {
                prop_assert!(ordered[..position].iter().any(|before| before.name == *name));
            }
        }
        if let Some(from) = (0..12).find(|from| !after[*from].is_empty()) {
            let to = *after[from].first().unwrap();
            after[to].insert(from);
            let error = parse(text(&after).as_bytes()).unwrap_err();
            prop_assert!(matches!(error, DeclarationError::Cycle(_)), "{}", error);
        }
    }
}
