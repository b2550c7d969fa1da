//! The repository on disk, and the way of its commits to another one.

use std::path::Path;

use reqwest::Url;

use super::bench::*;
use crate::api::ApiToken;
use crate::cli::CliError;
use crate::cli::git::{Repository, repository_name};

fn token() -> ApiToken {
    ApiToken::parse(&"0".repeat(64)).unwrap()
}

fn bare() -> (tempfile::TempDir, Url) {
    let folder = tempfile::tempdir().unwrap();
    git(folder.path(), &["init", "--quiet", "--bare"]);
    let url = Url::from_directory_path(folder.path()).unwrap();
    (folder, url)
}

async fn start(folder: &Path, branch: Option<&str>) -> Result<crate::cli::git::Start, CliError> {
    Repository::open(folder).await?.start(branch).await
}

#[test]
fn a_folders_name_becomes_a_repositorys_name() {
    for (folder, name) in [
        ("demo", Some("demo")),
        ("My Project (2)", Some("my-project-2")),
        ("Übung", Some("bung")),
        (".dotfiles", Some("dotfiles")),
        ("a..b", Some("a.b")),
        ("x.git", Some("x")),
        ("x.git.git.", Some("x")),
        ("...", None),
        ("日本", None),
    ] {
        assert_eq!(repository_name(folder).as_deref(), name, "{folder}");
    }
    assert_eq!(repository_name(&"a".repeat(300)).unwrap().len(), 100);
}

#[tokio::test]
async fn the_start_is_the_current_branch_or_the_named_one() {
    let (_parent, folder) = repository("Some Project");
    let first = git(&folder, &["rev-parse", "HEAD"]);
    git(&folder, &["switch", "--quiet", "--create", "feature/x"]);
    let second = commit(&folder, "second");
    std::fs::create_dir(folder.join("deep")).unwrap();
    let repository = Repository::open(&folder.join("deep")).await.unwrap();
    assert_eq!(repository.folder_name(), "Some Project");
    let current = repository.start(None).await.unwrap();
    assert_eq!((current.branch.as_str(), current.commit, current.current), ("feature/x", second, true));
    let named = repository.start(Some("main")).await.unwrap();
    assert_eq!((named.branch.as_str(), named.commit, named.current), ("main", first, false));
}

#[tokio::test]
async fn a_repository_of_another_user_is_not_called_no_repository() {
    assert!(rustix::process::geteuid().is_root(), "this test gives a folder to another user and needs root");
    let (_parent, folder) = repository("demo");
    std::os::unix::fs::chown(&folder, Some(65_534), Some(65_534)).unwrap();
    let error = Repository::open(&folder).await.unwrap_err();
    assert!(error.to_string().contains("it belongs to another user"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("--add safe.directory")), "{:?}", error.hint());
}

#[tokio::test]
async fn what_cannot_be_started_from_says_what_to_do() {
    let (_parent, folder) = repository("demo");
    let elsewhere = tempfile::tempdir().unwrap();
    let empty = tempfile::tempdir().unwrap();
    git(empty.path(), &["init", "--quiet", "--initial-branch=main"]);
    let shallow = tempfile::tempdir().unwrap();
    commit(&folder, "second");
    let origin = Url::from_directory_path(&folder).unwrap();
    git(shallow.path(), &["clone", "--quiet", "--depth=1", origin.as_str(), "."]);
    git(&folder, &["branch", "ostler/01jd"]);
    git(&folder, &["switch", "--quiet", "--detach"]);
    let mut text = String::new();
    for (path, branch) in [
        (elsewhere.path(), None),
        (Path::new("/nonexistent/x"), None),
        (empty.path(), None),
        (shallow.path(), None),
        (&folder, None),
        (&folder, Some("nowhere")),
        (&folder, Some("ostler/01jd")),
        (&folder, Some("main^{commit} -x")),
    ] {
        let error = start(path, branch).await.unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
        let line = format!("{error}\n    hint: {}\n", error.hint().unwrap());
        text.push_str(&line.replace(&*path.to_string_lossy(), "PATH"));
    }
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn a_push_brings_the_branch_and_moves_it_after_a_rebase() {
    let (_parent, folder) = repository("demo");
    let (target, url) = bare();
    let repository = Repository::open(&folder).await.unwrap();
    let push = async || repository.push(&repository.start(None).await.unwrap(), &url, &token()).await.unwrap();
    let there = || git(target.path(), &["rev-parse", "refs/heads/main"]);

    assert_eq!(push().await, None);
    let first = git(&folder, &["rev-parse", "HEAD"]);
    assert_eq!(there(), first);
    assert_eq!(push().await, None, "nothing to do");
    let second = commit(&folder, "second");
    assert_eq!(push().await, Some(first));
    git(&folder, &["commit", "--quiet", "--amend", "--message", "other"]);
    assert_eq!(push().await, Some(second));
    assert_eq!(there(), git(&folder, &["rev-parse", "HEAD"]));
}

#[tokio::test]
async fn a_branch_with_commits_of_somebody_else_is_not_overwritten() {
    let (_parent, folder) = repository("demo");
    let (target, url) = bare();
    let (_other, theirs) = repository("other");
    let foreign = commit(&theirs, "theirs");
    git(&theirs, &["push", "--quiet", url.as_str(), "main"]);
    let repository = Repository::open(&folder).await.unwrap();
    let error = repository.push(&repository.start(None).await.unwrap(), &url, &token()).await.unwrap_err();
    assert!(error.to_string().contains("never seen"), "{error}");
    assert!(error.hint().unwrap().contains("--repository"));
    assert_eq!(git(target.path(), &["rev-parse", "refs/heads/main"]), foreign);
}

#[tokio::test]
async fn hooks_and_tags_of_the_repository_stay_out_of_the_push() {
    let (parent, folder) = repository("demo");
    let (target, url) = bare();
    let witness = parent.path().join("ran");
    let hook = folder.join(".git/hooks/pre-push");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, format!("#!/bin/sh\ntouch {}\nexit 1\n", witness.display())).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    git(&folder, &["tag", "-a", "v1", "-m", "v1"]);
    git(&folder, &["config", "push.followTags", "true"]);
    let repository = Repository::open(&folder).await.unwrap();
    repository.push(&repository.start(None).await.unwrap(), &url, &token()).await.unwrap();
    assert!(!witness.exists());
    assert_eq!(git(target.path(), &["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
}

#[tokio::test]
async fn uncommitted_changes_are_counted() {
    let (_parent, folder) = repository("demo");
    let repository = Repository::open(&folder).await.unwrap();
    assert_eq!(repository.uncommitted().await.unwrap(), 0);
    std::fs::write(folder.join("file"), "changed").unwrap();
    std::fs::write(folder.join("new"), "new").unwrap();
    assert_eq!(repository.uncommitted().await.unwrap(), 2);
    let (_target, url) = bare();
    let bare = Repository::open(&url.to_file_path().unwrap()).await.unwrap();
    assert_eq!(bare.uncommitted().await.unwrap(), 0);
}
