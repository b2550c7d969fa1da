//! Guests that lie, through the whole product: what people and the agent see, what is kept, and that nobody else notices.

use std::collections::HashMap;

use anyhow::{Context, Result};
use ostler_protocol::event::{CutOff, ToolOutcome, TurnOutcome};
use ostler_protocol::{Event, EventBody, SessionId};
use ostler_tests::script::{END, script};
use ostler_tests::{Host, HostOptions, Repository, liar};

/// The lies, with a part of the reason that people read and what the sandbox is marked with.
const LIES: [(&str, &str, CutOff); 6] = [
    ("garbage", "the guest broke the protocol: an undecodable message", CutOff::BrokeProtocol),
    ("descriptor", "the guest broke the protocol: a socket", CutOff::BrokeProtocol),
    ("file", "`a` is not a file that can be read: it is not a regular file", CutOff::BrokeProtocol),
    ("flood", "the guest broke the protocol: a flood of messages that nobody waits for", CutOff::BrokeProtocol),
    ("repeat", "the guest broke the protocol: an answer that nobody asked for", CutOff::BrokeProtocol),
    ("silence", "the guest did not start a program within", CutOff::Silent),
];

/// A host whose sandboxes lie where their repository says so: in the middle of each turn.
async fn host(turns: &[&str]) -> Result<(Host, tempfile::TempDir)> {
    let folder = tempfile::tempdir()?;
    let program = liar::build(folder.path())?;
    let environment = vec![("OSTLER_TEST_GUEST".to_owned(), program.to_string_lossy().into_owned())];
    let host = Host::start(HostOptions { script: script(turns), environment, ..HostOptions::default() }).await?;
    Ok((host, folder))
}

/// A session on a repository that asks for a lie.
async fn session(host: &Host, lie: &str) -> Result<SessionId> {
    Repository::with(lie, &[("a", "a"), ("lie", lie)])?.push_to(&host.client).await?;
    Ok(host.client.create_session(lie).await?.id)
}

fn losses(events: &[Event]) -> Vec<(&str, Option<CutOff>)> {
    let losses = events.iter().filter_map(|event| match &event.body {
        EventBody::WorkspaceLost { reason, cut_off } => Some((reason.as_str(), *cut_off)),
        _ => None,
    });
    losses.collect()
}

fn results(events: &[Event]) -> Vec<(ToolOutcome, &str)> {
    let results = events.iter().filter_map(|event| match &event.body {
        EventBody::ToolFinished { outcome, output, .. } => Some((*outcome, output.as_str())),
        _ => None,
    });
    results.collect()
}

fn outcome(events: &[Event]) -> Option<&TurnOutcome> {
    events.iter().find_map(|event| match &event.body {
        EventBody::TurnFinished { outcome, .. } => Some(outcome),
        _ => None,
    })
}

const TURN: &str = r#"say = "I work."
call = [
    { tool = "shell", arguments = { command = "echo kept > kept.txt" } },
    { tool = "shell", arguments = { command = ": now-lie" } },
    { tool = "read_file", arguments = { path = "a" } },
    { tool = "shell", arguments = { command = "cat kept.txt" } },
]"#;

#[tokio::test]
async fn a_guest_that_lies_is_cut_off_and_marked_its_session_goes_on_and_no_other_notices() -> Result<()> {
    let (host, _folder) = host(&[TURN, END]).await?;
    let mut liars = HashMap::new();
    for (lie, ..) in LIES {
        liars.insert(lie, session(&host, lie).await?);
    }
    let honest = session(&host, "honest").await?;
    for session in liars.values().chain([&honest]) {
        host.client.prompt(*session, "go").await?;
    }
    let undisturbed = host.client.wait_until_idle(honest).await?;
    assert_eq!(outcome(&undisturbed), Some(&TurnOutcome::Done));
    assert_eq!(losses(&undisturbed), []);
    let expected = [
        (ToolOutcome::Done, ""),
        (ToolOutcome::Done, ""),
        (ToolOutcome::Done, "     1\ta\n"),
        (ToolOutcome::Done, "kept\n"),
    ];
    assert_eq!(results(&undisturbed), expected);

    for (lie, words, cut_off) in LIES {
        let events = host.client.wait_until_idle(liars[lie]).await?;
        let [(reason, marked)] = losses(&events)[..] else { panic!("{lie}: {events:#?}") };
        assert!(reason.contains(words), "{lie}: {reason}");
        assert_eq!(marked, Some(cut_off), "{lie}");
        // The agent knows, and goes on with the files that were kept.
        let results = results(&events);
        let lied = usize::from(lie == "file") + 1;
        let (outcome_of_lie, said) = results[lied];
        assert_eq!(outcome_of_lie, ToolOutcome::Unknown, "{lie}: {said}");
        assert!(said.contains(words) && said.contains("the sandbox was cut off for this"), "{lie}: {said}");
        assert_eq!(results[3], (ToolOutcome::Done, "kept\n"), "{lie}: {events:#?}");
        assert_eq!(outcome(&events), Some(&TurnOutcome::Done), "{lie}");
        assert_eq!(host.client.session(liars[lie]).await?.sandboxes_cut_off, 1, "{lie}");
    }
    // It ended long before the one that waits for a silent guest.
    let silent = host.client.events(liars["silence"]).await?;
    let when = |events: &[Event], wanted: fn(&EventBody) -> bool| {
        events.iter().find(|event| wanted(&event.body)).map(|event| event.at_ms)
    };
    let done = when(&undisturbed, |body| matches!(body, EventBody::TurnFinished { .. })).context("it is done")?;
    let given_up = when(&silent, |body| matches!(body, EventBody::WorkspaceLost { .. })).context("it was given up")?;
    assert!(done < given_up);

    let listed = host.command(&["sessions"])?.output()?;
    let listed = String::from_utf8(listed.stdout)?;
    assert_eq!(listed.matches("idle, a sandbox was cut off").count(), LIES.len(), "{listed}");
    Ok(())
}

#[tokio::test]
async fn a_guest_that_lies_while_nobody_asks_it_anything_is_cut_off_at_once() -> Result<()> {
    let (host, _folder) = host(&[TURN, END, TURN, END]).await?;
    let session = session(&host, "later").await?;
    host.client.prompt(session, "go").await?;
    let events = host.client.wait_for(session, "loss", |body| matches!(body, EventBody::WorkspaceLost { .. })).await?;
    assert!(matches!(losses(&events)[..], [(_, Some(CutOff::BrokeProtocol))]), "{events:#?}");
    assert_eq!(outcome(&events), Some(&TurnOutcome::Done), "{events:#?}");
    // What people ask for has an answer that helps, and a prompt finds the files.
    let asked = host.command(&["ports", &session.to_string()])?.output()?;
    let said = String::from_utf8(asked.stderr)?;
    assert!(said.contains("has no sandbox that runs") && said.contains("give it a prompt"), "{said}");
    host.client.prompt(session, "go").await?;
    host.client
        .wait_for(session, "restored sandbox", |body| matches!(body, EventBody::WorkspaceReady { restored: true, .. }))
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_guest_that_lies_at_its_first_word_fails_the_turn_and_the_next_one_finds_the_files() -> Result<()> {
    let first = TURN.replace(": now-lie", "touch lie-at-hello");
    let look = r#"say = "I look."
call = [{ tool = "shell", arguments = { command = "cat kept.txt" } }]"#;
    // Whether the failing turn hears the model before it fails is left to chance.
    let (mut host, _folder) = host(&[&first, END, look, look, END]).await?;
    let session = session(&host, "honest").await?;
    host.client.prompt(session, "go").await?;
    host.client.wait_until_idle(session).await?;
    host.stop()?;
    host.launch().await?;
    host.client.prompt(session, "go").await?;
    let events = host.client.wait_until_idle(session).await?;
    let (reason, marked) = *losses(&events).last().context("it was lost")?;
    assert!(reason.contains("cannot greet the guest"), "{reason}");
    assert_eq!(marked, Some(CutOff::BrokeProtocol));
    let failed = events.iter().rev().find_map(|event| match &event.body {
        EventBody::TurnFinished { outcome: TurnOutcome::Failed { message, .. }, .. } => Some(message),
        _ => None,
    });
    assert!(failed.context("the turn failed")?.contains("cannot greet the guest"), "{failed:?}");

    host.client.prompt(session, "go").await?;
    let events = host.client.wait_until_idle(session).await?;
    assert_eq!(results(&events).last(), Some(&(ToolOutcome::Done, "kept\n")), "{events:#?}");
    Ok(())
}

#[tokio::test]
async fn kept_files_that_would_lead_out_of_the_sandbox_are_refused_and_no_other_session_notices() -> Result<()> {
    let look = r#"say = "I look."
call = [{ tool = "shell", arguments = { command = "ls" } }]"#;
    let (mut host, _folder) = host(&[look, END, look, look, END]).await?;
    let evil = session(&host, "evil").await?;
    let honest = session(&host, "honest").await?;
    host.client.prompt(evil, "go").await?;
    host.client.wait_until_idle(evil).await?;
    host.stop()?;
    // What only somebody outside, or a hole in the kernel, can do.
    let dev = host.data().join("store/sandboxes").join(evil.bare()).join("upper/dev");
    let _ = std::fs::remove_dir_all(&dev);
    std::os::unix::fs::symlink(host.folder.path(), &dev)?;
    let before = std::fs::read_dir(host.folder.path())?.count();
    host.launch().await?;
    for session in [evil, honest] {
        host.client.prompt(session, "go").await?;
    }
    let events = host.client.wait_until_idle(evil).await?;
    let last = events.iter().rev().find_map(|event| match &event.body {
        EventBody::TurnFinished { outcome: TurnOutcome::Failed { message, .. }, .. } => Some(message.as_str()),
        _ => None,
    });
    let said = last.context("the turn failed")?;
    assert!(said.contains("the workspace could not be made") && said.contains("dev"), "{said}");
    assert_eq!(std::fs::read_dir(host.folder.path())?.count(), before, "nothing was made outside");
    assert_eq!(outcome(&host.client.wait_until_idle(honest).await?), Some(&TurnOutcome::Done));
    Ok(())
}
