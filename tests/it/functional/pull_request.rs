//! A prompt becomes a pull request, with a policy on the way.

use anyhow::Result;
use ostler_protocol::EventBody;
use ostler_protocol::api::{PullRequestList, SessionStatus};
use ostler_protocol::event::{ToolOutcome, Verdict};
use ostler_tests::repository::git;
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Host, HostOptions, Repository};
use reqwest::Method;

const POLICY: &str = r#"
[[deny]]
name = "no-force-push"
tool = "shell"
argument = "command"
regex = 'git\s+push\s.*--force'
message = "the host pushes the branch itself"

[[rewrite]]
name = "python-is-python3"
tool = "shell"
argument = "command"
regex = '^python '
replace = 'python3 '
message = "there is only python3"
"#;

const FILES: &[(&str, &str)] = &[
    ("AGENTS.md", "Run `python3 -B check.py` to test."),
    ("value.py", "VALUE = 1\n"),
    ("check.py", "import value\nassert value.VALUE == 2, 'FAILED: VALUE is %d' % value.VALUE\nprint('OK')\n"),
];

fn conversation() -> String {
    script(&[
        &shell("python3 -B check.py"),
        "expect = [{ call = 0, outcome = \"done\", exit_status = 1, pattern = \"FAILED\" }]\n\
         say = \"It fails.\"\n\
         call = [{ tool = \"shell\", arguments = { command = \"git push --force origin HEAD:main\" } }]",
        "expect = [{ call = 0, outcome = \"denied\", pattern = \"the host pushes\" }]\n\
         say = \"Denied.\"\n\
         call = [{ tool = \"shell\", arguments = { command = \"python --version\" } }]",
        "expect = [{ call = 0, outcome = \"done\", exit_status = 0, pattern = \"Python 3\" }]\n\
         say = \"I edit.\"\n\
         call = [{ tool = \"edit_file\", arguments = { path = \"value.py\", old = \"VALUE = 1\", new = \"VALUE = 2\" } }]",
        &format!("expect = [{{ call = 0, outcome = \"done\" }}]\n{}", shell("python3 -B check.py")),
        "expect = [{ call = 0, outcome = \"done\", exit_status = 0, pattern = \"OK\" }]\n\
         say = \"VALUE is 2 now.\"",
    ])
}

#[tokio::test]
async fn a_prompt_becomes_a_pull_request_under_the_persons_name() -> Result<()> {
    let options = HostOptions { script: conversation(), policy: Some(POLICY.into()), ..HostOptions::default() };
    let host = Host::start(options).await?;
    let repository = Repository::with("numbers", FILES)?;
    repository.push_to(&host.client).await?;
    let session = host.client.create_session("numbers").await?;
    host.client.prompt(session.id, "Make VALUE 2\n\nplease").await?;
    let events = host.client.wait_until_idle(session.id).await?;
    let view = host.client.session(session.id).await?;
    assert_eq!(view.status, SessionStatus::Idle, "{events:#?}");

    for (event, number) in events.iter().zip(1..) {
        assert_eq!(event.seq, number, "the log has no gaps");
    }
    let verdicts: Vec<Verdict> = events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Decided { hook, verdict, .. } if hook == "tool.execute.before" => Some(*verdict),
            _ => None,
        })
        .collect();
    assert_eq!(verdicts, [Verdict::Pass, Verdict::Deny, Verdict::Rewrite, Verdict::Pass, Verdict::Pass]);
    let context = events.iter().any(|event| matches!(&event.body, EventBody::ContextAdded { source, text } if source == "AGENTS.md" && text.contains("check.py")));
    assert!(context, "AGENTS.md of the repository is in the context");

    let pulls: PullRequestList = serde_json::from_value(host.client.ok(Method::GET, "/v1/pull-requests", None).await?)?;
    let [pull] = &pulls.pull_requests[..] else { panic!("{pulls:?}") };
    assert_eq!((pull.number, pull.title.as_str(), pull.body.as_str()), (1, "Make VALUE 2", "VALUE is 2 now."));
    assert_eq!(
        (pull.author.name.as_str(), pull.base.as_str(), pull.head.as_str()),
        ("Test Person", "main", view.branch.as_str())
    );
    assert_eq!(view.pull_request, Some(pull.id));

    let checkout = tempfile::tempdir()?;
    let bare = host.data().join("repositories/numbers.git");
    let bare = bare.to_string_lossy().into_owned();
    git(checkout.path(), &["clone", "--quiet", "--branch", &pull.head, &bare, "."])?;
    let log = git(checkout.path(), &["log", "--format=%H|%an|%ae|%cn|%s", "main..HEAD"]);
    let log = log.or_else(|_| git(checkout.path(), &["log", "--format=%H|%an|%ae|%cn|%s", "-1"]))?;
    let expected = format!("{}|Test Person|person@example.org|Test Person|Make VALUE 2", pull.head_commit);
    assert_eq!(log.lines().next(), Some(expected.as_str()));
    let status = std::process::Command::new("python3").arg("check.py").current_dir(checkout.path()).status()?;
    assert!(status.success(), "the tests pass in a checkout of the pull request");
    assert_eq!(git(repository.folder.path(), &["rev-parse", "main"])?.trim(), base_of(&events));
    Ok(())
}

fn base_of(events: &[ostler_protocol::Event]) -> String {
    let EventBody::SessionCreated { base_commit, .. } = &events[0].body else { panic!("{:?}", events[0]) };
    base_commit.clone()
}

#[tokio::test]
async fn a_follow_up_goes_on_in_the_same_workspace_and_updates_the_pull_request() -> Result<()> {
    let turns = script(&[
        &shell("echo one > one.txt"),
        END,
        &shell("cat one.txt && echo two > two.txt"),
        &format!("expect = [{{ call = 0, outcome = \"done\", exit_status = 0, pattern = \"one\" }}]\n{END}"),
    ]);
    let host = Host::start(HostOptions { script: turns, ..HostOptions::default() }).await?;
    Repository::with("demo", FILES)?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    host.client.prompt(session, "first").await?;
    host.client.prompt(session, "second").await?;
    let events = host.client.wait_until_idle(session).await?;
    let opened = events.iter().filter(|event| matches!(event.body, EventBody::PullRequestOpened { .. })).count();
    let updated = events.iter().filter(|event| matches!(event.body, EventBody::PullRequestUpdated { .. })).count();
    assert_eq!((opened, updated), (1, 1), "{events:#?}");
    let made = events.iter().filter(|event| matches!(event.body, EventBody::WorkspaceRequested)).count();
    assert_eq!(made, 1, "one sandbox serves both prompts");
    let diff = host.client.ok(Method::GET, &format!("/v1/sessions/{session}/diff"), None).await?;
    let text = diff["diff"].as_str().unwrap_or_default();
    assert!(text.contains("+one") && text.contains("+two"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_follow_up_that_changes_nothing_leaves_the_pull_request_as_it_is() -> Result<()> {
    let turns = script(&[&shell("echo one > one.txt"), "say = \"One is there.\"", "say = \"It holds one line.\""]);
    let (host, session) = Host::with_session(turns).await?;
    host.client.prompt(session, "write").await?;
    host.client.wait_until_idle(session).await?;
    host.client.prompt(session, "what is in it?").await?;
    let events = host.client.wait_until_idle(session).await?;
    let Some(EventBody::PublishSkipped { reason, failure: None }) = events.last().map(|event| &event.body) else {
        panic!("{events:#?}");
    };
    assert_eq!(reason, "nothing was changed");
    let pulls: PullRequestList = serde_json::from_value(host.client.ok(Method::GET, "/v1/pull-requests", None).await?)?;
    let [pull] = &pulls.pull_requests[..] else { panic!("{pulls:?}") };
    assert_eq!(pull.body, "One is there.");
    Ok(())
}

#[tokio::test]
async fn a_session_starts_from_its_commit_where_the_branch_has_moved_away_from_it() -> Result<()> {
    let (host, _) = Host::with_session(script(&[&shell("cat a"), END])).await?;
    let repository = Repository::with("moving", FILES)?;
    repository.push_to(&host.client).await?;
    let session = host.client.create_session("moving").await?.id;
    let bare = host.data().join("repositories/moving.git");
    git(repository.folder.path(), &["commit", "--quiet", "--amend", "--allow-empty", "--message", "another"])?;
    let header = format!("http.extraHeader=Authorization: Bearer {}", host.client.token);
    let url = format!("{}/git/moving.git", host.client.url);
    git(repository.folder.path(), &["-c", &header, "push", "--quiet", "--force", &url, "main"])?;
    host.client.prompt(session, "look").await?;
    let events = host.client.wait_until_idle(session).await?;
    let base = base_of(&events);
    assert_ne!(git(&bare, &["rev-parse", "main"])?.trim(), base);
    assert_eq!(host.client.session(session).await?.status, SessionStatus::Idle, "{events:#?}");
    Ok(())
}

#[tokio::test]
async fn a_turn_that_changes_nothing_opens_no_pull_request() -> Result<()> {
    let turns = script(&[&shell("true"), END]);
    let host = Host::start(HostOptions { script: turns, ..HostOptions::default() }).await?;
    Repository::with("demo", FILES)?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    host.client.prompt(session, "look").await?;
    let events = host.client.wait_until_idle(session).await?;
    let Some(EventBody::PublishSkipped { reason, failure: None }) = events.last().map(|event| &event.body) else {
        panic!("{events:#?}");
    };
    assert_eq!(reason, "nothing was changed");
    Ok(())
}

#[tokio::test]
async fn every_tool_that_ran_names_a_decision_of_its_own() -> Result<()> {
    let turns = script(&[
        "say = \"all\"\ncall = [\n\
         { tool = \"write_file\", arguments = { path = \"a/b.txt\", content = \"hello\" } },\n\
         { tool = \"read_file\", arguments = { path = \"a/b.txt\" } },\n\
         { tool = \"list_files\", arguments = { path = \"a\" } },\n\
         { tool = \"search\", arguments = { pattern = \"hel+o\" } },\n\
         { tool = \"teleport\", arguments = { } }]",
        "expect = [{ call = 0, outcome = \"done\" }, { call = 1, pattern = \"hello\" }, { call = 2, pattern = \"b.txt\" },\n\
         { call = 3, pattern = \"b.txt\" }, { call = 4, outcome = \"failed\", pattern = \"there is no tool\" }]\n\
         say = \"Done.\"",
    ]);
    let host = Host::start(HostOptions { script: turns, ..HostOptions::default() }).await?;
    Repository::with("demo", FILES)?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?.id;
    host.client.prompt(session, "use every tool").await?;
    let events = host.client.wait_until_idle(session).await?;
    let decided: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Decided { decision, .. } => Some(*decision),
            _ => None,
        })
        .collect();
    let mut started = 0;
    for event in &events {
        match &event.body {
            EventBody::ToolStarted { decision, .. } => {
                assert!(decided.contains(decision));
                started += 1;
            }
            EventBody::ToolFinished { outcome, output, .. } => {
                assert_ne!(*outcome, ToolOutcome::Unknown, "{output}");
            }
            _ => {}
        }
    }
    assert_eq!(started, 5);
    assert!(matches!(events.last().map(|event| &event.body), Some(EventBody::PullRequestOpened { .. })), "{events:#?}");
    Ok(())
}
