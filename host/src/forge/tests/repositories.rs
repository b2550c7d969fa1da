//! Making, finding and reading repositories.

use super::super::{ForgeError, NameError};
use super::*;

#[tokio::test]
async fn a_repository_is_made_once_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let forge = Forge::open(folder.path(), GitRunner::children()).unwrap();
    let (one, two, three) = (name("demo"), name("demo"), name("other"));
    let (one, two, three) = tokio::join!(forge.create(&one), forge.create(&two), forge.create(&three));
    assert_eq!(one.unwrap(), two.unwrap());
    let names = async |after, limit| -> Vec<String> {
        let listed = forge.list(after, limit).await.unwrap();
        listed.into_iter().map(|repository| repository.name.to_string()).collect()
    };
    assert_eq!(names(None, 9).await, ["demo", "other"]);
    assert_eq!(names(None, 1).await, ["demo"]);
    assert_eq!(names(Some("demo"), 9).await, ["other"]);
    assert_eq!(names(Some("e"), 9).await, ["other"], "the name before a page may be gone");
    assert_eq!(three.unwrap().default_branch, "main");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(!folder.path().join("demo.git/hooks").exists());
}

#[tokio::test]
async fn what_an_interrupted_create_left_is_removed_on_open() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join(".new-01jd/objects")).unwrap();
    let forge = Forge::open(folder.path(), GitRunner::children()).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(forge.list(None, 9).await.unwrap(), []);
}

#[tokio::test]
async fn an_unknown_repository_or_branch_is_an_error_that_says_what_exists() {
    let world = World::new().await;
    let error = world.forge.resolve(&name("nope"), None).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no repository `nope`; the forge has `demo`");
    let error = world.forge.resolve(&name("demo"), Some("nope")).await.unwrap_err();
    assert_eq!(error.to_string(), "the repository `demo` has no branch `nope`; it has `main`");
    let error = world.forge.resolve(&name("demo"), Some("--help")).await.unwrap_err();
    assert!(matches!(error, ForgeError::Name(NameError::Branch { .. })), "{error:?}");
    world.forge.create(&name("empty")).await.unwrap();
    let error = world.forge.resolve(&name("empty"), None).await.unwrap_err();
    assert_eq!(error.to_string(), "the repository `empty` is empty: push a branch to it first");
}

#[tokio::test]
async fn a_branch_resolves_to_its_commit_and_a_tag_does_not() {
    let world = World::new().await;
    let head = world.head().await;
    let main = world.forge.resolve(&name("demo"), None).await.unwrap();
    assert_eq!((main.name, &main.commit), ("main".to_owned(), &head));
    let path = world.forge.path(&name("demo"));
    git(&path, &["tag", "v1", "main"]).await;
    assert!(world.forge.resolve(&name("demo"), Some("v1")).await.is_err());
    git(&path, &["branch", "next", "main"]).await;
    world.forge.set_default_branch(&name("demo"), "next").await.unwrap();
    assert_eq!(world.forge.resolve(&name("demo"), None).await.unwrap().name, "next");
    let error = world.forge.set_default_branch(&name("demo"), "nope").await.unwrap_err();
    assert!(matches!(error, ForgeError::UnknownBranch { .. }), "{error:?}");
}

#[tokio::test]
async fn a_link_or_a_file_is_no_repository() {
    let world = World::new().await;
    let root = world.folder.path().join("forge");
    std::os::unix::fs::symlink("demo.git", root.join("link.git")).unwrap();
    std::fs::write(root.join("file.git"), "x").unwrap();
    std::fs::create_dir(root.join("broken.git")).unwrap();
    std::fs::write(root.join("broken.git/HEAD"), "ref: refs/../../x\n").unwrap();
    for text in ["link", "file", "broken"] {
        let error = world.forge.get(&name(text)).await.unwrap_err();
        assert!(matches!(error, ForgeError::Foreign { .. }), "{text}: {error:?}");
        assert!(world.forge.create(&name(text)).await.is_err(), "{text}");
    }
}

#[tokio::test]
async fn a_diff_shows_the_change_of_the_branch_and_is_cut_at_a_line() {
    let world = World::new().await;
    let base = world.head().await;
    let path = world.forge.path(&name("demo"));
    git(&world.work, &["checkout", "-q", "-b", "x"]).await;
    world.commit("new.txt", b"one\ntwo\nthree\n", "add new").await;
    git(&world.work, &["checkout", "-q", "main"]).await;
    world.commit("main.txt", b"main\n", "meanwhile").await;
    git(&world.work, &["push", "-q", path.to_str().unwrap(), "main", "x"]).await;
    let demo = name("demo");
    let (whole, truncated) = world.forge.diff(&demo, &base, "x", 4096).await.unwrap();
    assert!(whole.starts_with("diff --git a/new.txt b/new.txt\n") && whole.ends_with("+three\n"), "{whole}");
    // Against a base that went on, only the branch's own change is shown.
    let main = world.head().await;
    assert_eq!(world.forge.diff(&demo, &main, "x", 4096).await.unwrap(), (whole.clone(), false));
    assert!(!truncated);
    let cut = world.forge.diff(&demo, &base, "x", whole.len() - 1).await.unwrap();
    assert_eq!(cut, (whole.strip_suffix("+three\n").unwrap().to_owned(), true));
    let exact = world.forge.diff(&demo, &base, "x", whole.len()).await.unwrap();
    assert_eq!(exact, (whole, false));
    let error = world.forge.diff(&demo, &"1".repeat(40), "x", 4096).await.unwrap_err();
    assert!(matches!(error, ForgeError::UnknownCommit { .. }), "{error:?}");
    world.assert_no_git().await;
}

#[tokio::test]
async fn the_log_names_commits_with_their_authors() {
    let world = World::new().await;
    let base = world.head().await;
    let second = world.commit("b", b"b", "second: with \"quotes\"").await;
    let path = world.forge.path(&name("demo"));
    git(&world.work, &["push", "-q", path.to_str().unwrap(), "main"]).await;
    let log = world.forge.log(&name("demo"), Some(&base), "main", 10).await.unwrap();
    let expected = super::super::Commit {
        commit: second,
        author: "Ada".into(),
        email: "ada@example.org".into(),
        subject: "second: with \"quotes\"".into(),
    };
    assert_eq!(log, [expected]);
    assert_eq!(world.forge.log(&name("demo"), None, "main", 10).await.unwrap().len(), 2);
    assert_eq!(world.forge.log(&name("demo"), None, "main", 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_is_read_from_a_commit_and_links_are_not_followed() {
    let world = World::new().await;
    std::os::unix::fs::symlink("/etc/passwd", world.work.join("AGENTS.md")).unwrap();
    std::fs::create_dir(world.work.join("sub")).unwrap();
    let commit = world.commit("sub/*.md", b"a\nb\nc\n", "files").await;
    let path = world.forge.path(&name("demo"));
    git(&world.work, &["push", "-q", path.to_str().unwrap(), "main"]).await;
    let read = async |path: &str, max| world.forge.read_file(&name("demo"), &commit, path, max).await;
    assert_eq!(read("README.md", 100).await.unwrap().unwrap(), b"hello\n");
    assert_eq!(read("sub/*.md", 100).await.unwrap().unwrap(), b"a\nb\nc\n");
    assert_eq!(read("sub/*.md", 6).await.unwrap().unwrap(), b"a\nb\nc\n");
    let error = read("sub/*.md", 5).await.unwrap_err();
    assert_eq!(error.to_string(), "`sub/*.md` is larger than 5 bytes");
    for absent in ["AGENTS.md", "sub", "nope", ":(top)README.md", "sub/?.md"] {
        assert_eq!(read(absent, 100).await.unwrap(), None, "{absent}");
    }
    for bad in ["", "/etc/passwd", "../x", "sub/../README.md", "sub/"] {
        assert!(matches!(read(bad, 100).await.unwrap_err(), ForgeError::Name(NameError::Path { .. })), "{bad}");
    }
}
