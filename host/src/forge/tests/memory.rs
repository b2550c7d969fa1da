//! What a client pushes does not decide how much memory git takes here.

use super::*;

#[tokio::test]
async fn a_commit_that_is_larger_than_git_may_hold_is_refused() {
    let world = World::new().await;
    let served = world.serve(session()).await;
    let before = world.references().await;
    // A few hundred kilobytes in a pack.
    let message = world.folder.path().join("message");
    std::fs::write(&message, vec![b'x'; 130 << 20]).unwrap();
    git(&world.work, &["commit", "-q", "--allow-empty", "--cleanup=verbatim", "-F", message.to_str().unwrap()]).await;
    let said = git_fails(&world.work, &["push", "-q", &served.url("demo"), "main:refs/heads/ostler/x"]).await;
    assert_eq!(world.references().await, before, "{said}");
    // A person's own history is theirs to judge.
    let full = world.serve(Access::Full).await;
    git(&world.work, &["push", "-q", &full.url("demo"), "main:refs/heads/mine"]).await;
    world.assert_no_git().await;
}

#[tokio::test]
async fn a_file_that_is_larger_than_git_should_compare_is_only_named() {
    let world = World::new().await;
    let base = world.head().await;
    world.commit("large.txt", &b"line\n".repeat(17 << 18), "large").await;
    git(&world.work, &["push", "-q", world.forge.path(&name("demo")).to_str().unwrap(), "main"]).await;
    let (diff, cut) = world.forge.diff(&name("demo"), &base, "main", 1 << 20).await.unwrap();
    assert!(diff.contains("Binary files") && diff.contains("large.txt") && !cut, "{diff:.200}");
}
