//! What is in a repository gets nowhere: not by what it holds, not by what somebody who had taken git over left in it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::Result;
use ostler_tests::repository::{git, git_client};
use ostler_tests::script::{END, script};
use ostler_tests::{Host, HostOptions, Repository};

/// A path of the host's data folder in this process's view.
fn forge(host: &Host, path: &str) -> PathBuf {
    host.data().join("repositories").join(path)
}

/// Gives a tree to the owner of the forge.
fn give_away(host: &Host, tree: &Path) -> Result<()> {
    let owner = fs::metadata(forge(host, ""))?;
    lchown(tree, Some(owner.uid()), Some(owner.gid()))?;
    if fs::symlink_metadata(tree)?.is_dir() {
        for entry in fs::read_dir(tree)? {
            give_away(host, &entry?.path())?;
        }
    }
    Ok(())
}

/// Commits a new file.
fn commit(repository: &Repository, file: &str) -> Result<()> {
    let folder = repository.folder.path();
    fs::write(folder.join(file), "more")?;
    git(folder, &["add", "--all"])?;
    git(folder, &["commit", "--quiet", "--message", "more"])?;
    Ok(())
}

async fn world() -> Result<(Host, Repository, Repository, String)> {
    let host = Host::start(HostOptions { script: script(&[END]), ..HostOptions::default() }).await?;
    let demo = Repository::with("demo", &[("a", "content")])?;
    demo.push_to(&host.client).await?;
    let other = Repository::with("other", &[("secret", "of another repository")])?;
    other.push_to(&host.client).await?;
    let secret = git(other.folder.path(), &["rev-parse", "HEAD"])?.trim().to_owned();
    Ok((host, demo, other, secret))
}

#[tokio::test]
async fn hooks_and_settings_in_a_repository_run_nothing() -> Result<()> {
    let (host, demo, ..) = world().await?;
    let bare = forge(&host, "demo.git");
    let program = bare.join("program");
    // It would leave a trace in the one place that it could write to.
    fs::write(&program, "#!/bin/sh\ntouch /repository/ran-$$\necho ran >&2\n")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    fs::create_dir_all(bare.join("hooks"))?;
    for hook in ["pre-receive", "update", "post-receive", "post-update", "proc-receive", "reference-transaction"] {
        fs::copy(&program, bare.join("hooks").join(hook))?;
    }
    let settings = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tfsmonitor = /repository/program\n\
                    \tsshCommand = /repository/program\n\thooksPath = /repository/hooks\n\tpager = /repository/program\n\
                    \tgitProxy = /repository/program\n[uploadpack]\n\tpackObjectsHook = /repository/program\n\
                    [diff]\n\texternal = /repository/program\n[gc]\n\tauto = 1\n\trecentObjectsHook = /repository/program\n";
    fs::write(bare.join("config"), settings)?;
    give_away(&host, &bare)?;
    commit(&demo, "b")?;
    let pushed = git_client(&host.client, demo.folder.path(), "demo", &["push", "URL", "main"]).await?;
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    let folder = tempfile::tempdir()?;
    let cloned = git_client(&host.client, folder.path(), "demo", &["clone", "URL", "copy"]).await?;
    assert!(cloned.status.success() && folder.path().join("copy/b").exists(), "{cloned:?}");
    host.client.create_session("demo").await?;
    let names: Vec<_> =
        fs::read_dir(&bare)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with("ran-")), "{names:?}");
    Ok(())
}

/// By each way in which a repository can name objects elsewhere, the commit of another repository is asked for.
#[tokio::test]
async fn no_repository_borrows_the_objects_of_another() -> Result<()> {
    let (host, _, _, secret) = world().await?;
    let (bare, other) = (forge(&host, "demo.git"), forge(&host, "other.git/objects"));
    let alternates = bare.join("objects/info/alternates");
    let ways: [(&str, &dyn Fn() -> Result<()>); 3] = [
        ("by its path", &|| Ok(fs::write(&alternates, format!("{}\n", other.display()))?)),
        ("by a path beside its own", &|| Ok(fs::write(&alternates, "../../other.git/objects\n")?)),
        ("by a link", &|| {
            fs::remove_file(&alternates)?;
            fs::rename(bare.join("objects"), bare.join("old"))?;
            Ok(symlink(&other, bare.join("objects"))?)
        }),
    ];
    for (way, prepare) in ways {
        prepare()?;
        fs::write(bare.join("refs/heads/stolen"), format!("{secret}\n"))?;
        give_away(&host, &bare)?;
        // Outside of its sandbox git would find it.
        assert_eq!(git(&bare, &["cat-file", "-t", &secret])?.trim(), "commit", "{way}");
        let folder = tempfile::tempdir()?;
        git(folder.path(), &["init", "--quiet"])?;
        let fetched = git_client(&host.client, folder.path(), "demo", &["fetch", "URL", "stolen"]).await?;
        assert!(!fetched.status.success(), "{way}: {fetched:?}");
        assert!(git(folder.path(), &["cat-file", "-t", &secret]).is_err(), "{way}");
    }
    Ok(())
}

#[tokio::test]
async fn a_head_that_became_a_link_or_a_fifo_is_not_followed_nor_waited_for() -> Result<()> {
    let (host, ..) = world().await?;
    let head = forge(&host, "demo.git/HEAD");
    let answers = async || host.client.send(reqwest::Method::GET, "/v1/repositories/demo", None).await;
    assert_eq!(answers().await?.0, 200);
    fs::remove_file(&head)?;
    symlink(forge(&host, "other.git/HEAD"), &head)?;
    give_away(&host, &head)?;
    assert_eq!(answers().await?.0, 500);
    fs::remove_file(&head)?;
    rustix::fs::mknodat(rustix::fs::CWD, &head, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)?;
    give_away(&host, &head)?;
    assert_eq!(answers().await?.0, 500);
    Ok(())
}

/// While repositories are cloned and pushes come in, every git of the host is below the launcher, in namespaces and with uids that are nobody's.
#[tokio::test]
async fn no_git_of_the_forge_runs_outside_of_a_sandbox() -> Result<()> {
    let (host, demo, ..) = world().await?;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, data) = (std::sync::Arc::clone(&stop), host.data());
    let watcher = std::thread::spawn(move || {
        let mut seen = BTreeSet::new();
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            seen.extend(forge_gits(&data));
        }
        seen
    });
    let folder = tempfile::tempdir()?;
    for number in 0..8 {
        let name = number.to_string();
        let cloned = git_client(&host.client, folder.path(), "demo", &["clone", "URL", &name]).await?;
        assert!(cloned.status.success(), "{cloned:?}");
        commit(&demo, &name)?;
        let pushed = git_client(&host.client, demo.folder.path(), "demo", &["push", "URL", "main"]).await?;
        assert!(pushed.status.success(), "{pushed:?}");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let seen = watcher.join().map_err(|_| anyhow::anyhow!("the watcher failed"))?;
    assert!(!seen.is_empty(), "some git is seen");
    for (pid, uid) in seen {
        assert!(uid >= 0x7000_0000, "process {pid} runs as {uid}");
    }
    Ok(())
}

/// Processes named `git` that work in a folder called `/repository` or in this host's data folder, with their uid.
fn forge_gits(data: &Path) -> Vec<(u32, u32)> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let git = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        let folder = fs::read_link(entry.path().join("cwd")).ok()?;
        let is_ours = folder == Path::new("/repository") || folder.starts_with(data);
        (name.trim_end() == "git" && is_ours).then_some(())?;
        Some((pid, entry.metadata().ok()?.uid()))
    };
    processes.filter_map(git).collect()
}
