//! Commits belong to the person who asked, whatever the sandbox holds.

use anyhow::Result;
use ostler_tests::repository::git;
use ostler_tests::script::{END, script, shell};
use ostler_tests::{Host, HostOptions, Repository};

#[tokio::test]
async fn a_wrong_identity_in_the_sandbox_does_not_reach_a_commit() -> Result<()> {
    let turns = script(&[
        &shell(
            "printf '[user]\\nname = Wrong\\nemail = wrong@example.org\\n' | tee /etc/gitconfig > /root/.gitconfig; \
             git config user.name Wrong; git config user.email wrong@example.org; \
             echo by-agent > agent.txt; git add agent.txt; git commit -q -m 'by the agent'; echo rest > rest.txt",
        ),
        END,
    ]);
    let host = Host::start(HostOptions { script: turns, ..HostOptions::default() }).await?;
    Repository::with("demo", &[("a", "a")])?.push_to(&host.client).await?;
    let session = host.client.create_session("demo").await?;
    host.client.prompt(session.id, "commit").await?;
    let events = host.client.wait_until_idle(session.id).await?;
    let bare = host.data().join("repositories/demo.git");
    let log = git(&bare, &["log", "--format=%an <%ae> %cn <%ce>", &format!("main..{}", session.branch)])?;
    let lines: Vec<&str> = log.lines().collect();
    let person = "Test Person <person@example.org> Test Person <person@example.org>";
    assert_eq!(lines, [person, person], "{events:#?}");
    Ok(())
}
