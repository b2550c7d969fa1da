//! The sandbox from inside: what a command of the agent is and what it reaches.

use std::collections::HashMap;

use anyhow::{Context, Result};
use ostler_protocol::EventBody;
use ostler_protocol::event::EgressVerdict;
use ostler_tests::client::tool_outputs;
use ostler_tests::repository::git;
use ostler_tests::script::{self, END};
use ostler_tests::{Host, HostOptions, Repository};

/// Runs commands in one sandbox and returns their outputs.
async fn outputs(commands: &[&str]) -> Result<(Host, Vec<String>)> {
    let (host, _, outputs) = run(commands).await?;
    Ok((host, outputs))
}

/// The same, with the session's log.
async fn run(commands: &[&str]) -> Result<(Host, Vec<ostler_protocol::Event>, Vec<String>)> {
    let host = Host::start(HostOptions { script: script::commands(commands), ..HostOptions::default() }).await?;
    Repository::with("demo", &[("a", "a")])?.push_to(&host.client).await?;
    Repository::with("other", &[("secret", "s")])?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    host.client.prompt(session, "go").await?;
    let events = host.client.wait_until_idle(session).await?;
    let outputs = tool_outputs(&events);
    Ok((host, events, outputs))
}

#[tokio::test]
async fn the_host_itself_has_no_privileges_and_cannot_get_any() -> Result<()> {
    let host = Host::start(HostOptions { script: script::script(&[END]), ..HostOptions::default() }).await?;
    let pid = host.pid()?;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let uids = field("Uid:");
        assert!(uids.len() == 4 && uids.iter().all(|uid| uid != "0"), "{status}");
        assert_eq!(field("Groups:"), Vec::<String>::new(), "{status}");
        for set in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
            assert_eq!(field(set), ["0000000000000000"], "{set} {status}");
        }
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), (vec!["1".into()], vec!["2".into()]), "{status}");
    }
    Ok(())
}

#[tokio::test]
async fn every_process_in_a_sandbox_is_confined() -> Result<()> {
    let (_host, outputs) =
        outputs(&["for p in /proc/[0-9]*; do cat $p/status; echo; done; echo MAP; cat /proc/self/uid_map; echo NS; readlink /proc/self/ns/*"]).await?;
    let output = &outputs[0];
    let (statuses, rest) = output.split_once("MAP\n").context("the map")?;
    let mut seen = 0;
    for status in statuses.split("\n\n").filter(|status| status.contains("NoNewPrivs")) {
        let fields: HashMap<&str, &str> =
            status.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k, v.trim())).collect();
        assert_eq!(fields.get("NoNewPrivs"), Some(&"1"), "{status}");
        assert_eq!(fields.get("Seccomp"), Some(&"2"), "{status}");
        assert_eq!(fields.get("CapInh"), Some(&"0000000000000000"), "{status}");
        assert_eq!(fields.get("CapAmb"), Some(&"0000000000000000"), "{status}");
        let bounding = u64::from_str_radix(fields.get("CapBnd").context("CapBnd")?, 16)?;
        // CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_MODULE, CAP_SYS_CHROOT, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_MKNOD.
        for capability in [12, 13, 16, 18, 19, 21, 27] {
            assert_eq!(bounding & (1 << capability), 0, "capability {capability} in {status}");
        }
        seen += 1;
    }
    assert!(seen >= 2, "PID 1 and the command are seen: {statuses}");
    let (map, namespaces) = rest.split_once("NS\n").context("the namespaces")?;
    let map: Vec<u64> = map.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    assert_eq!((map[0], map[2]), (0, 65_536));
    assert!(map[1] >= 0x7000_0000, "the range never touches users of the host: {map:?}");
    for kind in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}"))?.to_string_lossy().into_owned();
        assert!(namespaces.contains(&format!("{kind}:[")), "{namespaces}");
        assert!(!namespaces.contains(&own), "{kind} is not the host's");
    }
    Ok(())
}

#[tokio::test]
async fn a_sandbox_pushes_to_its_own_branch_only_and_sees_its_own_repository_only() -> Result<()> {
    let (host, outputs) = outputs(&[
        "echo x > x; git add x; git commit -q -m x; git push origin HEAD:refs/heads/main 2>&1; echo status $?",
        "git push origin HEAD:refs/tags/v1 2>&1; echo status $?",
        "git push origin :refs/heads/main 2>&1; echo status $?",
        "git ls-remote http://git.ostler.internal/other.git 2>&1; echo status $?",
    ])
    .await?;
    for output in &outputs {
        assert!(!output.trim_end().ends_with("status 0"), "{output}");
    }
    assert!(outputs[0].contains("may push only to") || outputs[0].contains("rejected"), "{}", outputs[0]);
    let bare = host.data().join("repositories/demo.git");
    assert_eq!(git(&bare, &["log", "--format=%s", "main"])?.trim(), "begin", "main is untouched");
    assert_eq!(git(&bare, &["tag"])?.trim(), "");
    Ok(())
}

#[tokio::test]
async fn the_network_is_closed_and_says_so_at_once() -> Result<()> {
    const PROBE: &str = r#"python3 - <<'P'
import socket
def attempt(name, family, kind, address):
    try:
        s = socket.socket(family, kind); s.settimeout(20); s.connect(address)
        if kind == socket.SOCK_DGRAM: s.send(b"x")
        data = s.recv(1)
        print(name, "data" if data else "closed")
    except OSError as error:
        print(name, "timeout" if isinstance(error, TimeoutError) else "refused")
attempt("tcp", socket.AF_INET, socket.SOCK_STREAM, ("203.0.113.9", 443))
attempt("metadata", socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80))
attempt("udp", socket.AF_INET, socket.SOCK_DGRAM, ("203.0.113.9", 443))
try: socket.getaddrinfo("example.org", 80); print("dns resolved")
except OSError: print("dns refused")
try: socket.socket(socket.AF_PACKET, socket.SOCK_RAW); print("packet open")
except OSError: print("packet refused")
P"#;
    let (_host, events, outputs) = run(&[PROBE]).await?;
    for name in ["tcp", "metadata", "udp"] {
        let line = outputs[0].lines().find(|line| line.starts_with(name)).context("a line")?;
        assert!(line.ends_with("closed") || line.ends_with("refused"), "{}", outputs[0]);
    }
    let seen = |name: &str, on: Option<u16>| {
        let refused = |body: &EventBody| {
            matches!(body, EventBody::EgressDecided { host, port, verdict: EgressVerdict::Refused, .. }
                if host == name && *port == on)
        };
        events.iter().any(|event| refused(&event.body))
    };
    assert!(
        seen("203.0.113.9", Some(443)) && seen("example.org", None),
        "refusals are events that people see: {events:#?}"
    );
    assert!(outputs[0].contains("dns refused") && outputs[0].contains("packet refused"), "{}", outputs[0]);
    Ok(())
}

#[tokio::test]
async fn no_token_of_the_host_is_in_the_sandbox() -> Result<()> {
    let (host, outputs) = outputs(&[
        "env; cat /proc/1/environ | tr '\\0' '\\n'; cat /workspace/.git/config; ls -l /proc/1/fd /proc/self/fd",
        "grep -rIl --exclude-dir=proc --exclude-dir=sys -e \"$(printf 'zz')NEVER\" / 2>/dev/null | head -3; mount",
    ])
    .await?;
    for output in &outputs {
        assert!(!output.contains(&host.client.token), "{output}");
        assert!(!output.contains("ostler-test-"), "no path of the host is named inside: {output}");
    }
    Ok(())
}
