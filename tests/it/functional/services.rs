//! Services that a repository declares, in real sandboxes.

use anyhow::{Context, Result, ensure};
use ostler_protocol::api::SessionStatus;
use ostler_protocol::processes::ServiceState;
use ostler_protocol::processes::{ProcessList, ProcessOutput, ProcessView};
use ostler_protocol::{Event, EventBody, SessionId};
use ostler_tests::client::tool_outputs;
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Host, HostOptions, Repository};
use reqwest::{Method, StatusCode};
use serde_json::json;

/// A host that plays a script, and a session on a repository that declares services.
pub(crate) async fn declared(services: &str, script: String, policy: Option<&str>) -> Result<(Host, SessionId)> {
    let options = HostOptions { script, policy: policy.map(str::to_owned), ..HostOptions::default() };
    let host = Host::start(options).await?;
    Repository::with("demo", &[("a", "a"), (".ostler/services.toml", services)])?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    Ok((host, session))
}

/// Prompts a session and gives its log once it is done.
pub(crate) async fn turn(host: &Host, session: SessionId) -> Result<Vec<Event>> {
    host.client.prompt(session, "go").await?;
    let events = host.client.wait_until_idle(session).await?;
    let status = host.client.session(session).await?.status;
    ensure!(status == SessionStatus::Idle, "{status:?}: {events:#?}");
    Ok(events)
}

/// The states of a service, in the order in which they were told.
pub(crate) fn states(events: &[Event], name: &str) -> Vec<ServiceState> {
    let state = |event: &Event| match &event.body {
        EventBody::ServiceChanged { service, state, .. } if service == name => Some(*state),
        _ => None,
    };
    events.iter().filter_map(state).collect()
}

/// What the agent was told beside its tools.
pub(crate) fn told(events: &[Event]) -> String {
    let text = |event: &Event| match &event.body {
        EventBody::ContextAdded { source, text } if source == "ostler" => Some(format!("{text}\n")),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

pub(crate) async fn listed(host: &Host, session: SessionId, name: &str) -> Result<ProcessView> {
    let path = format!("/v1/sessions/{session}/processes");
    let list: ProcessList = serde_json::from_value(host.client.ok(Method::GET, &path, None).await?)?;
    list.processes.into_iter().find(|process| process.name == name).with_context(|| format!("`{name}` is listed"))
}

async fn act(host: &Host, session: SessionId, name: &str, what: &str) -> Result<ProcessView> {
    let path = format!("/v1/sessions/{session}/processes/{name}/{what}");
    Ok(serde_json::from_value(host.client.ok(Method::POST, &path, None).await?)?)
}

pub(crate) async fn wait_for_state(
    host: &Host,
    session: SessionId,
    name: &str,
    wanted: ServiceState,
) -> Result<Vec<Event>> {
    let is_it = |body: &EventBody| matches!(body, EventBody::ServiceChanged { service, state, .. } if service == name && *state == wanted);
    host.client.wait_for(session, &format!("{name} that is {wanted:?}"), is_it).await
}

#[tokio::test]
async fn services_are_ready_by_port_by_http_and_by_command_before_the_first_tool_runs() -> Result<()> {
    let services = r#"
[files]
command = "exec python3 -m http.server 5001 --bind 127.0.0.1"
ready = { port = 5001 }

[pages]
command = "exec python3 -m http.server $PORT --bind ::1"
environment = { PORT = "5002" }
ready = { http = "http://localhost:5002/a", status = 200 }
after = ["files", "slow"]

[slow]
command = "sleep 0.5; touch /tmp/there; exec sleep 1000"
ready = { command = "test -e /tmp/there" }
"#;
    let check = shell(
        "cat /tmp/there && curl -sf --noproxy '*' http://127.0.0.1:5001/a && curl -sfg --noproxy '*' 'http://[::1]:5002/a'",
    );
    let (host, session) = declared(services, script(&[&check, END]), None).await?;
    let events = turn(&host, session).await?;
    assert_eq!(tool_outputs(&events), ["aa"], "{events:#?}");
    let position = |wanted: &dyn Fn(&EventBody) -> bool| events.iter().position(|event| wanted(&event.body));
    let state = |name: &'static str, wanted: ServiceState| {
        position(
            &move |body| matches!(body, EventBody::ServiceChanged { service, state, .. } if service == name && *state == wanted),
        )
    };
    let tool = position(&|body| matches!(body, EventBody::ToolStarted { .. }));
    for name in ["files", "pages", "slow"] {
        assert_eq!(states(&events, name), [ServiceState::Starting, ServiceState::Ready], "{events:#?}");
        assert!(state(name, ServiceState::Ready) < tool, "{events:#?}");
        assert!(told(&events).contains(&format!("The service `{name}` is ready.")), "{events:#?}");
        assert_eq!(listed(&host, session, name).await?.service.map(|service| service.state), Some(ServiceState::Ready));
    }
    assert!(state("slow", ServiceState::Ready) < state("pages", ServiceState::Starting), "{events:#?}");
    // Each start has a decision of the hooks, which is in the log before it.
    for (number, event) in events.iter().enumerate() {
        if let EventBody::ServiceChanged { state: ServiceState::Starting, decision, .. } = &event.body {
            let decided = |event: &Event| matches!(&event.body, EventBody::Decided { decision: found, .. } if Some(*found) == *decision);
            assert!(events[..number].iter().any(decided), "{event:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_service_that_dies_is_started_again_and_given_up_in_the_end_and_the_agent_knows() -> Result<()> {
    let services = r#"
[broken]
command = "echo no such database; exit 3"
ready = { port = 5001 }

[web]
command = "exec sleep 4321"
"#;
    let turns = script(&[&shell("pkill -9 -f 'sleep 4321'"), &shell("true"), END, END]);
    let (host, session) = declared(services, turns, None).await?;
    // Nobody waits until it is given up; the agent is told how it stands, and in the end.
    let events = turn(&host, session).await?;
    assert!(told(&events).contains("The service `broken` is restarting: it ended with status 3"), "{}", told(&events));
    wait_for_state(&host, session, "broken", ServiceState::Failed).await?;
    let events = turn(&host, session).await?;
    let broken = states(&events, "broken");
    let of = |wanted: ServiceState| broken.iter().filter(|state| **state == wanted).count();
    assert_eq!((of(ServiceState::Starting), of(ServiceState::Restarting)), (6, 5), "{events:#?}");
    let words = told(&events);
    let given_up = "The service `broken` is failed: it ended with status 3; it was started again 5 times in a row and is given up.";
    let told = words.lines().find(|line| line.starts_with(given_up));
    assert!(
        told.is_some_and(|line| line.ends_with("It wrote last:")) && words.contains("\n  | no such database"),
        "{words}"
    );
    assert_eq!(listed(&host, session, "broken").await?.service.map(|service| service.restarts), Some(5));
    // The one that the agent killed comes back.
    let killed = wait_for_state(&host, session, "web", ServiceState::Restarting).await?;
    assert!(killed.iter().any(|event| matches!(&event.body, EventBody::ServiceChanged { why: Some(why), .. } if why.contains("status 137 (signal 9)"))), "{killed:#?}");
    let again = |body: &EventBody| matches!(body, EventBody::ServiceChanged { service, state: ServiceState::Starting, .. } if service == "web");
    let count = |events: &[Event]| events.iter().filter(|event| again(&event.body)).count();
    let first = count(&killed);
    let after = killed.last().map_or(0, |event| event.seq);
    let ready = host.client.wait_for_after(session, after, "a service that is ready again", |body| {
        matches!(body, EventBody::ServiceChanged { service, state: ServiceState::Ready, .. } if service == "web")
    });
    assert_eq!((first, count(&ready.await?)), (1, 2));
    Ok(())
}

#[tokio::test]
async fn a_declaration_that_cannot_be_used_is_told_and_the_work_goes_on_without() -> Result<()> {
    for (services, words) in [
        (
            "[web]\ncommand = \"x\"\nrestrat = \"never\"",
            "service `web` has an unknown key `restrat`; did you mean `restart`?",
        ),
        (
            "[a]\ncommand = \"x\"\nafter = [\"b\"]\n[b]\ncommand = \"x\"\nafter = [\"a\"]",
            "services wait for each other: `a` after `b` after `a`",
        ),
        (&"#".repeat(70_000), "has more than 65536 bytes"),
    ] {
        let (host, session) = declared(services, script(&[&shell("echo worked"), END]), None).await?;
        let events = turn(&host, session).await?;
        assert_eq!(tool_outputs(&events), ["worked\n"]);
        let refused = events.iter().find_map(|event| match &event.body {
            EventBody::ServicesRefused { reason } => Some(reason.clone()),
            _ => None,
        });
        let refused = refused.with_context(|| format!("it is told: {events:#?}"))?;
        assert!(refused.contains(words) && refused.starts_with(".ostler/services.toml"), "{refused}");
        assert!(told(&events).contains(words), "{events:#?}");
        assert!(!events.iter().any(|event| matches!(event.body, EventBody::ServiceChanged { .. })));
    }
    Ok(())
}

#[tokio::test]
async fn a_declaration_that_is_a_link_leads_nowhere() -> Result<()> {
    let host =
        Host::start(HostOptions { script: script(&[&shell("echo worked"), END]), ..HostOptions::default() }).await?;
    let repository = Repository::with("demo", &[("a", "[web]\ncommand = \"x\"")])?;
    std::fs::create_dir(repository.folder.path().join(".ostler"))?;
    std::os::unix::fs::symlink("/etc/shadow", repository.folder.path().join(".ostler/services.toml"))?;
    ostler_tests::repository::git(repository.folder.path(), &["add", "--all"])?;
    ostler_tests::repository::git(repository.folder.path(), &["commit", "--quiet", "--message", "link"])?;
    repository.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    let events = turn(&host, session).await?;
    assert_eq!(tool_outputs(&events), ["worked\n"]);
    let refused = events
        .iter()
        .any(|event| matches!(&event.body, EventBody::ServicesRefused { reason } if reason.contains("cannot be read")));
    assert!(refused, "{events:#?}");
    Ok(())
}

#[tokio::test]
async fn a_service_that_floods_its_log_holds_up_nobody_and_keeps_its_last_words() -> Result<()> {
    let services = "[loud]\ncommand = \"exec yes flood\"";
    let (host, session) = declared(services, script(&[&shell("echo worked"), END]), None).await?;
    let events = turn(&host, session).await?;
    assert_eq!(tool_outputs(&events), ["worked\n"]);
    let path = format!("/v1/sessions/{session}/processes/loud/output");
    let output: ProcessOutput = serde_json::from_value(host.client.ok(Method::GET, &path, None).await?)?;
    assert!(output.output.ends_with("flood\n") || output.output.contains("flood\nflood\n"), "{}", output.output.len());
    let view = listed(&host, session, "loud").await?;
    assert!(view.written - view.kept_from <= 256 * 1024, "{view:?}");
    let stopped = act(&host, session, "loud", "stop").await?;
    assert_eq!(stopped.service.map(|service| service.state), Some(ServiceState::Stopped));
    Ok(())
}

#[tokio::test]
async fn people_and_the_agent_stop_and_start_services_and_their_names_are_taken() -> Result<()> {
    let services = "[web]\ncommand = \"echo run >> /tmp/runs; exec sleep 1000\"\nrestart = \"always\"\nready = { command = \"test -e /tmp/runs\" }";
    let tool = |tool: &str, arguments: &str| format!("call = [{{ tool = \"{tool}\", arguments = {arguments} }}]");
    let turns = script(&[
        &tool("service_restart", "{ name = \"web\" }"),
        &tool("shell_output", "{}"),
        &tool("shell", "{ command = \"true\", background = true, name = \"web\" }"),
        &tool("service_restart", "{ name = \"nobody\" }"),
        &shell("until [ \"$(wc -l < /tmp/runs)\" = 2 ]; do sleep 0.02; done"),
        &tool("shell_stop", "{ name = \"web\" }"),
        &shell("sleep 0.2; wc -l < /tmp/runs"),
        END,
    ]);
    let (host, session) = declared(services, turns, None).await?;
    let events = turn(&host, session).await?;
    let outputs = tool_outputs(&events);
    assert!(outputs[0].starts_with("`web` was started and is "), "{outputs:#?}");
    assert!(outputs[1].starts_with("web  service, "), "{outputs:#?}");
    assert!(outputs[2].contains("`web` is a service of the repository"), "{outputs:#?}");
    assert!(outputs[3].contains("the repository declares no service `nobody`"), "{outputs:#?}");
    assert!(outputs[5].contains("`web` has ended"), "{outputs:#?}");
    assert_eq!(outputs[6], "2\n");
    assert_eq!(states(&events, "web").last(), Some(&ServiceState::Stopped), "{events:#?}");
    let path = format!("/v1/sessions/{session}/processes");
    let (status, body) =
        host.client.send(Method::POST, &path, Some(json!({ "name": "web", "command": "true" }))).await?;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    let started = act(&host, session, "web", "restart").await?;
    assert!(started.exit_status.is_none(), "{started:?}");
    let (status, body) = host.client.send(Method::POST, &format!("{path}/nobody/restart"), None).await?;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    let stopped = act(&host, session, "web", "stop").await?;
    assert_eq!(stopped.exit_status, Some(143), "{stopped:?}");
    Ok(())
}

#[tokio::test]
async fn what_the_rules_forbid_no_declaration_allows() -> Result<()> {
    let rules = "[[deny]]\nname = \"no\"\ntool = \"shell\"\nargument = \"command\"\nregex = 'forbidden'\nmessage = \"not here\"\n";
    let services = "[bad]\ncommand = \"echo forbidden > /tmp/forbidden; exec sleep 1000\"\nrestart = \"always\"";
    let (host, session) = declared(services, script(&[&shell("ls /tmp"), END]), Some(rules)).await?;
    let events = turn(&host, session).await?;
    assert_eq!(tool_outputs(&events), [""], "{events:#?}");
    assert_eq!(states(&events, "bad"), [ServiceState::Failed], "{events:#?}");
    assert!(told(&events).contains("its start was denied: no: not here (policy)"), "{events:#?}");
    Ok(())
}

#[tokio::test]
async fn one_that_is_never_ready_holds_up_the_first_tool_only_as_long_as_it_says() -> Result<()> {
    let services =
        "[web]\ncommand = \"exec sleep 1000\"\nready = { port = 5001 }\nready_within = \"1s\"\nrestart = \"never\"";
    let (host, session) = declared(services, script(&[&shell("echo worked"), END]), None).await?;
    let events = turn(&host, session).await?;
    assert_eq!(tool_outputs(&events), ["worked\n"]);
    let words = "it was not ready within 1s: nothing listens on port 5001 of the sandbox";
    let failed = wait_for_state(&host, session, "web", ServiceState::Failed).await?;
    let why = failed.last().map(|event| event.body.clone());
    assert!(matches!(&why, Some(EventBody::ServiceChanged { why: Some(why), .. }) if why.contains(words)), "{why:?}");
    Ok(())
}

#[tokio::test]
async fn the_end_of_a_background_command_is_told_once_with_its_last_words() -> Result<()> {
    let background = "call = [{ tool = \"shell\", arguments = { command = \"until [ -e /tmp/go ]; do sleep 0.02; done; echo bye; exit 4\", background = true, name = \"build\" } }]";
    let turns = script(&[background, END, &shell("true"), END]);
    let (mut host, session) = Host::with_session(turns).await?;
    turn(&host, session).await?;
    let path = format!("/v1/sessions/{session}/processes");
    let go = json!({ "name": "go", "command": "touch /tmp/go; exec sleep 1000" });
    host.client.ok(Method::POST, &path, Some(go)).await?;
    let is_end = |body: &EventBody| matches!(body, EventBody::ProcessEnded { .. });
    let events = host.client.wait_for(session, "end of a command", is_end).await?;
    let end = events.last().map(|event| event.body.clone());
    let Some(EventBody::ProcessEnded { process, exit_status, output, .. }) = end else { anyhow::bail!("{end:?}") };
    assert_eq!((process.as_str(), exit_status, output.as_str()), ("build", 4, "bye"));
    // Neither the next host nor one that was stopped tells it again, and one that was stopped is no news.
    host.kill()?;
    host.launch().await?;
    host.client.ok(Method::POST, &format!("{path}/go/stop"), None).await?;
    let events = turn(&host, session).await?;
    assert_eq!(events.iter().filter(|event| is_end(&event.body)).count(), 1, "{events:#?}");
    let words = "The background command `build` ended by itself with status 4. It wrote last:\n  | bye";
    assert_eq!(told(&events).matches(words).count(), 1, "{}", told(&events));
    Ok(())
}
