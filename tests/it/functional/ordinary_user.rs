//! The product for a person who is not root: image, host, session, pull request, restart.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ostler_tests::OrdinaryUser;
use ostler_tests::script::{END, commands, script, shell};

/// A host of the user's.
struct Running(Child);

impl Running {
    fn start(user: &OrdinaryUser) -> Result<Self> {
        let mut up = user.command("ostler", &["up", "--listen", "127.0.0.1:0", "--script", "script.toml"])?;
        let log = std::fs::File::options().create(true).append(true).open(user.path("up.log"))?;
        let mut child = up.stdout(Stdio::piped()).stderr(log).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("output")?).read_line(&mut line)?;
        ensure!(line.contains("ready"), "{line}{}", std::fs::read_to_string(user.path("up.log"))?);
        Ok(Self(child))
    }

    fn stop(mut self) -> Result<()> {
        ostler_tests::host::send_signal(self.0.id(), rustix::process::Signal::TERM)?;
        let ended = self.0.wait()?;
        ensure!(ended.success(), "{ended}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn git(user: &OrdinaryUser, arguments: &[&str]) -> Result<String> {
    let own = ["-C", "repo", "-c", "user.name=Test Person", "-c", "user.email=person@example.org"];
    user.run("git", &[&own[..], arguments].concat())
}

#[test]
fn an_ordinary_user_comes_from_an_image_to_a_pull_request_and_on_after_a_restart() -> Result<()> {
    let user = OrdinaryUser::new()?;
    let first = shell("id -u && cat /proc/self/uid_map && echo line >> file");
    let second = shell("cat file && stat -c %u:%g file /bin/sh && echo line >> file && cat file");
    let script = script(&[&first, &second, END, &second, END]);
    std::fs::write(user.path("home/script.toml"), script)?;
    user.run("git", &["init", "-q", "-b", "main", "repo"])?;
    user.run("sh", &["-c", "echo first > repo/file"])?;
    git(&user, &["add", "file"])?;
    git(&user, &["commit", "-qm", "one"])?;

    let image = user.path("image.tar");
    user.run("ostler", &["images", "import", &image.to_string_lossy(), "--name", "base"])?;
    ensure!(user.run("ostler", &["images", "list"])?.contains("base"));
    let data = user.path("home/.local/share/ostler");
    ensure!(data.join("store").is_dir(), "the data lies in the user's home");

    let doctor = user.command("ostler", &["doctor", "--script", "script.toml"])?.output()?;
    let doctor = String::from_utf8_lossy(&doctor.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for found in [
        "0 failed",
        "OK overlay: mounted in a namespace of its own, and written to",
        "OK nftables: the rules of a sandbox's door are accepted",
        "Warning idmapped mounts: not without root",
        "no group of its own with memory, pids, cpu",
        "16 at one time with 4096 ids each",
    ] {
        ensure!(doctor.contains(found), "{found}: {doctor}");
    }
    let host = Running::start(&user)?;
    let prompt = ["run", "--repo", "repo", "--name", "Test Person", "--email", "person@example.org", "Add a line"];
    let said = user.run("ostler", &prompt)?;
    ensure!(said.contains("pull request #1 is open"), "{said}");
    // Root in there, an id of the user's outside; the image's files are root's in there as well.
    ensure!(said.contains("first\n    line") && said.contains("0:0\n    0:0"), "{said}");
    ensure!(said.contains("4095") && said.contains("65534"), "{said}");
    let uids: Vec<u32> = user.processes().into_iter().map(|(_, uid)| uid).collect();
    ensure!(uids.contains(&user.id) && uids.iter().any(|uid| *uid >= user.first), "host and sandbox: {uids:?}");
    let log = std::fs::read_to_string(user.path("up.log"))?;
    for lost in ["each sandbox has a copy of its image's files", "memory is not limited", "processes are not limited"] {
        ensure!(log.contains(lost), "{log}");
    }
    host.stop()?;
    let until = Instant::now() + Duration::from_secs(20);
    while !user.processes().is_empty() {
        ensure!(Instant::now() < until, "{:?}", user.processes());
        std::thread::yield_now();
    }

    let host = Running::start(&user)?;
    let sessions = user.run("ostler", &["sessions", "--json"])?;
    let start = sessions.find("ses_").context("a session")?;
    let session = sessions.get(start..start + 30).context("its id")?;
    let said = user
        .run("ostler", &["prompt", session, "--name", "Test Person", "--email", "person@example.org", "And another"])?;
    ensure!(said.contains("first\n    line\n    line"), "the files of the session are there again: {said}");
    host.stop()
}

#[test]
fn who_may_have_no_ids_is_told_what_to_do_before_anything_is_made() -> Result<()> {
    let user = OrdinaryUser::new()?;
    std::fs::write(user.path("subuid"), "ordinary:100000:1000\n")?;
    std::fs::write(user.path("home/script.toml"), commands(&[]))?;
    let image = user.path("image.tar").to_string_lossy().into_owned();
    for arguments in [vec!["up", "--script", "script.toml"], vec!["images", "import", &image, "--name", "base"]] {
        let output = user.command("ostler", &arguments)?.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{said}");
        ensure!(said.contains("/etc/subuid gives ordinary 1000 ids and 65536 are needed"), "{said}");
        ensure!(said.contains("usermod --add-subuids"), "{said}");
    }
    ensure!(!user.path("home/.local").exists(), "nothing is made");
    let doctor = user.command("ostler", &["doctor"])?.output()?;
    let said = String::from_utf8_lossy(&doctor.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(said.contains("cannot make sandboxes: find subordinate ids"), "{said}");
    Ok(())
}
