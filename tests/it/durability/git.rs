//! `kill -9` of what git runs in, in the middle of a push.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use anyhow::{Context, Result};
use ostler_tests::client::PATIENCE;
use ostler_tests::repository::{git, git_client};
use ostler_tests::script::{END, script};
use ostler_tests::{Host, HostOptions, Repository};

use super::clean_up::{descendants, kill_process, launcher_pid};

/// A host, a repository on it, and the head of its `main`.
async fn world() -> Result<(Host, Repository, String)> {
    let host = Host::start(HostOptions { script: script(&[END]), ..HostOptions::default() }).await?;
    let repository = Repository::with("demo", &[("a", "content")])?;
    repository.push_to(&host.client).await?;
    let head = git(repository.folder.path(), &["rev-parse", "HEAD"])?.trim().to_owned();
    Ok((host, repository, head))
}

fn bare(host: &Host) -> PathBuf {
    host.data().join("repositories/demo.git")
}

/// Begins to push `head` to a new branch and stops in the middle of the pack.
fn half_a_push(host: &Host, head: &str) -> Result<TcpStream> {
    let address = host.client.url.strip_prefix("http://").context("an address")?;
    let update = format!("{} {head} refs/heads/topic\0 report-status", "0".repeat(40));
    let mut body = format!("{:04x}{update}0000PACK", update.len() + 4).into_bytes();
    body.extend([0, 0, 0, 2, 0, 0, 0, 9, 0x95]);
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "POST /git/demo.git/git-receive-pack HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/x-git-receive-pack-request\r\nContent-Length: 100000\r\n\r\n",
        host.client.token
    );
    stream.write_all(&[request.as_bytes(), &body].concat())?;
    Ok(stream)
}

/// Processes of this host's launcher with these words in their command line.
fn running(host: &Host, words: &str) -> Result<Vec<u32>> {
    let has_words = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).replace('\0', " ").contains(words)
    };
    Ok(descendants(launcher_pid(host)?)?.into_iter().filter(has_words).collect())
}

/// Waits for the git that takes a push in.
fn wait_for_receiver(host: &Host) -> Result<u32> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(pid) = running(host, "receive-pack --stateless-rpc .")?.first() {
            return Ok(*pid);
        }
        anyhow::ensure!(std::time::Instant::now() < deadline, "no push came in: {}", host.log());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// PID 1 of the sandbox in which a process lives.
fn first_process_of(host: &Host, pid: u32) -> Result<u32> {
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    let own = namespace(pid)?;
    let is_first = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
    };
    let all = descendants(launcher_pid(host)?)?;
    let found = all.into_iter().find(|pid| is_first(*pid) && namespace(*pid).is_ok_and(|found| found == own));
    found.context("the sandbox has a first process")
}

/// What a git that is killed at its worst moment leaves: the lock of the reference, for which every later push would wait.
fn leave_lock(host: &Host) -> Result<PathBuf> {
    let lock = bare(host).join("refs/heads/topic.lock");
    std::fs::write(&lock, "")?;
    let owner = std::fs::metadata(bare(host))?;
    chown(&lock, Some(owner.uid()), Some(owner.gid()))?;
    Ok(lock)
}

async fn assert_next_push_works(host: &Host, repository: &Repository, head: &str) -> Result<()> {
    let folder = repository.folder.path();
    let pushed = git_client(&host.client, folder, &repository.name, &["push", "URL", "main:topic"]).await?;
    assert!(pushed.status.success(), "{}\n{}", String::from_utf8_lossy(&pushed.stderr), host.log());
    assert_eq!(git(&bare(host), &["rev-parse", "topic"])?.trim(), head);
    git(&bare(host), &["fsck", "--strict"])?;
    Ok(())
}

#[tokio::test]
async fn a_push_whose_sandbox_is_killed_changes_nothing_is_told_and_the_next_one_works() -> Result<()> {
    let (host, repository, head) = world().await?;
    let before = git(&bare(&host), &["for-each-ref"])?;
    let mut stream = half_a_push(&host, &head)?;
    let receiver = wait_for_receiver(&host)?;
    let lock = leave_lock(&host)?;
    kill_process(first_process_of(&host, receiver)?)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("the sandbox of git ended in the middle"), "{answer}");
    assert_eq!(git(&bare(&host), &["for-each-ref"])?, before);
    assert_next_push_works(&host, &repository, &head).await?;
    assert!(!lock.exists());
    Ok(())
}

#[tokio::test]
async fn a_host_that_is_killed_while_a_push_comes_in_changes_nothing_and_the_next_host_takes_it() -> Result<()> {
    let (mut host, repository, head) = world().await?;
    let before = git(&bare(&host), &["for-each-ref"])?;
    let _stream = half_a_push(&host, &head)?;
    let receiver = wait_for_receiver(&host)?;
    leave_lock(&host)?;
    host.kill()?;
    host.launch().await?;
    assert_eq!(git(&bare(&host), &["for-each-ref"])?, before);
    assert_next_push_works(&host, &repository, &head).await?;
    assert!(!PathBuf::from(format!("/proc/{receiver}")).exists(), "the git of the first host is gone");
    Ok(())
}

#[tokio::test]
async fn a_reader_that_is_killed_is_made_anew_at_its_next_use() -> Result<()> {
    let (host, ..) = world().await?;
    let session = || host.client.create_session("demo");
    session().await?;
    for pid in running(&host, "ostler-guest")? {
        kill_process(pid)?;
    }
    assert_eq!(running(&host, "ostler-guest")?, Vec::<u32>::new());
    session().await?;
    assert_eq!(running(&host, "ostler-guest")?.len(), 1);
    Ok(())
}
