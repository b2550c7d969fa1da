//! Clone and push with a real git client, with both kinds of access.

use super::*;

#[tokio::test]
async fn a_holder_of_the_token_fills_an_empty_repository_and_clones_it() {
    let world = World::new().await;
    world.forge.create(&name("fresh")).await.unwrap();
    let mut served = world.serve(Access::Full).await;
    let url = served.url("fresh");
    git(&world.work, &["push", "-q", &url, "main:trunk"]).await;
    let pushed = served.pushed.recv().await.unwrap();
    let expected = Pushed {
        repository: name("fresh"),
        session: None,
        reference: "refs/heads/trunk".into(),
        commit: Some(world.head().await),
    };
    assert_eq!(pushed, expected);
    // The first branch becomes the default one, before the push is over.
    assert_eq!(world.forge.get(&name("fresh")).await.unwrap().default_branch, "trunk");
    git(world.folder.path(), &["clone", "-q", &url, "copy"]).await;
    assert_eq!(std::fs::read_to_string(world.folder.path().join("copy/README.md")).unwrap(), "hello\n");
    git(&world.work, &["tag", "v1"]).await;
    git(&world.work, &["push", "-q", &url, "v1", "main"]).await;
    git(&world.work, &["push", "-q", &url, ":v1"]).await;
    assert_eq!(world.forge.get(&name("fresh")).await.unwrap().default_branch, "trunk");
    world.assert_no_git().await;
}

#[tokio::test]
async fn every_way_to_clone_works_and_all_at_once() {
    let world = World::new().await;
    world.commit("second", b"2", "second").await;
    git(&world.work, &["push", "-q", world.forge.path(&name("demo")).to_str().unwrap(), "main"]).await;
    let served = world.serve(session()).await;
    let url = served.url("demo");
    let ways: [&[&str]; 6] = [
        &["-c", "protocol.version=2"],
        &["-c", "protocol.version=1"],
        &["-c", "protocol.version=0"],
        &["-c", "protocol.version=0", "-c", "http.postBuffer=1", "--depth=1"],
        &["-c", "protocol.version=2", "--depth=1"],
        &["-c", "protocol.version=2", "--filter=blob:none"],
    ];
    let clones = ways.iter().enumerate().map(async |(number, way)| {
        let folder = format!("copy{number}");
        let (settings, options) = way.split_at(way.iter().take_while(|word| !word.starts_with("--")).count());
        let mut arguments = settings.to_vec();
        arguments.extend(["clone", "-q"]);
        arguments.extend(options);
        arguments.extend([url.as_str(), &folder]);
        git(world.folder.path(), &arguments).await;
        git(&world.folder.path().join(folder), &["rev-parse", "HEAD"]).await
    });
    let head = format!("{}\n", world.head().await);
    for found in futures::future::join_all(clones).await {
        assert_eq!(found, head);
    }
    world.assert_no_git().await;
}

#[tokio::test]
async fn a_session_creates_moves_and_forces_its_own_branch() {
    let world = World::new().await;
    let access = session();
    let mut served = world.serve(access.clone()).await;
    let folder = world.folder.path();
    git(folder, &["clone", "-q", "--depth=1", &served.url("demo"), "copy"]).await;
    let copy = folder.join("copy");
    git(&copy, &["checkout", "-q", "-b", "ostler/x"]).await;
    for (number, push) in [
        vec!["push", "-q", "origin", "HEAD"],
        vec!["push", "-q", "origin", "HEAD"],
        vec!["push", "-q", "--force", "origin", "HEAD"],
    ]
    .into_iter()
    .enumerate()
    {
        if number == 2 {
            git(&copy, &["reset", "-q", "--hard", "HEAD~1"]).await;
        } else {
            git(&copy, &["commit", "-q", "--allow-empty", "-m", &format!("work {number}")]).await;
        }
        git(&copy, &push).await;
        let head = git(&copy, &["rev-parse", "HEAD"]).await.trim().to_owned();
        assert_eq!(world.forge.resolve(&name("demo"), Some("ostler/x")).await.unwrap().commit, head);
        let pushed = served.pushed.recv().await.unwrap();
        assert_eq!((pushed.session, pushed.commit), (access.session(), Some(head)));
    }
    // Nothing new is no push.
    git(&copy, &["push", "-q", "origin", "HEAD"]).await;
    assert!(served.pushed.try_recv().is_err());
}

#[tokio::test]
async fn every_other_push_of_a_session_is_refused_in_words_and_changes_nothing() {
    let world = World::new().await;
    let mut served = world.serve(session()).await;
    let url = served.url("demo");
    git(&world.work, &["push", "-q", &url, "main:ostler/x"]).await;
    served.pushed.recv().await.unwrap();
    world.commit("evil", b"evil", "evil").await;
    git(&world.work, &["tag", "v1"]).await;
    let before = world.references().await;
    let table: [(&[&str], &str); 9] = [
        (
            &["main"],
            "[remote rejected] main -> main (changes reach `main` by pull request; push to refs/heads/ostler/x instead)",
        ),
        (&["--force", "main"], "changes reach `main` by pull request"),
        (&["main:refs/heads/other"], "(this session may push only to refs/heads/ostler/x)"),
        (&["v1"], "[remote rejected] v1 -> v1 (this session may push only to refs/heads/ostler/x)"),
        (&["main:refs/notes/x"], "may push only to"),
        (&[":ostler/x"], "[remote rejected] ostler/x (this session may not delete references"),
        (&["main:ostler/x", "main:other"], "nothing was updated, because another reference of this push is refused"),
        (&["--atomic", "main:ostler/x", "v1"], "may push only to"),
        (&["--mirror"], "[remote rejected]"),
    ];
    for (arguments, expected) in table {
        let mut whole = vec!["push"];
        whole.extend(arguments.iter().take_while(|word| word.starts_with('-')));
        whole.push(&url);
        whole.extend(arguments.iter().skip_while(|word| word.starts_with('-')));
        let said = git_fails(&world.work, &whole).await;
        assert!(said.contains(expected), "{arguments:?} said {said}");
        assert_eq!(world.references().await, before, "{arguments:?}");
    }
    let object = try_git(&world.forge.path(&name("demo")), &["cat-file", "-e", &world.head().await]).await;
    assert!(!object.status.success(), "objects of a refused push were kept");
    assert!(served.pushed.try_recv().is_err());
    world.assert_no_git().await;
}

#[tokio::test]
async fn a_session_sees_no_other_repository() {
    let world = World::new().await;
    world.forge.create(&name("secret")).await.unwrap();
    let served = world.serve(session()).await;
    let there = git_fails(world.folder.path(), &["clone", &served.url("secret")]).await;
    let absent = git_fails(world.folder.path(), &["clone", &served.url("nopety")]).await;
    assert_eq!(there.replace("secret", "nopety"), absent, "one can be told from the other");
    assert!(absent.contains("there is no repository `nopety` here"), "{absent}");
    for path in ["demo", "..%2fdemo.git", "%2e%2e.git", "demo.git.git", "demo%00.git", "demo.git/../secret.git", ".git"]
    {
        let url = format!("http://{}/{path}", served.address);
        let output = try_git(world.folder.path(), &["ls-remote", &url]).await;
        assert_eq!(output.status.success(), path == "demo", "{path}");
    }
}

#[tokio::test]
async fn a_large_push_comes_in_pieces_and_a_refused_one_is_read_to_its_end() {
    let world = World::new().await;
    let served = world.serve(session()).await;
    let url = served.url("demo");
    let noise: Vec<u8> =
        (0u64..600_000).flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).collect();
    world.commit("large", &noise, "large").await;
    let said = git_fails(&world.work, &["push", &url, "main"]).await;
    assert!(said.contains("by pull request"), "{said}");
    git(&world.work, &["push", "-q", &url, "main:ostler/x"]).await;
    assert_eq!(world.forge.resolve(&name("demo"), Some("ostler/x")).await.unwrap().commit, world.head().await);
}

#[tokio::test]
async fn what_a_push_brings_is_checked_and_limited() {
    let limits = ForgeLimits { session_push: 100_000, ..ForgeLimits::default() };
    let world = World::with(limits).await;
    let served = world.serve(session()).await;
    let url = served.url("demo");
    let before = world.references().await;
    let noise: Vec<u8> =
        (0u64..60_000).flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).collect();
    world.commit("large", &noise, "large").await;
    let said = git_fails(&world.work, &["push", &url, "main:ostler/x"]).await;
    assert!(said.contains("exceeds") || said.contains("unpack") || said.contains("413"), "{said}");
    git(&world.work, &["reset", "-q", "--hard", "HEAD~1"]).await;
    // A tree that would write into `.git` of whoever checks it out.
    let blob = git(&world.work, &["hash-object", "-w", "README.md"]).await;
    let listing = world.folder.path().join("listing");
    std::fs::write(&listing, format!("100644 blob {}\t.git\n", blob.trim())).unwrap();
    let mut make = client(&world.work, &["mktree"]);
    let tree = make.stdin(std::fs::File::open(&listing).unwrap()).output().await.unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let commit = git(&world.work, &["commit-tree", "-m", "trap", tree.trim()]).await;
    let said = git_fails(&world.work, &["push", &url, &format!("{}:refs/heads/ostler/x", commit.trim())]).await;
    assert!(said.contains("hasDotgit"), "{said}");
    assert_eq!(world.references().await, before);
    world.assert_no_git().await;
}

/// A hook, a configuration or an alternate in a repository would run or read on the host.
#[tokio::test]
async fn no_hook_runs_on_the_host() {
    let world = World::new().await;
    let served = world.serve(Access::Full).await;
    let path = world.forge.path(&name("demo"));
    let mark = world.folder.path().join("ran");
    std::fs::create_dir(path.join("hooks")).unwrap();
    for hook in ["pre-receive", "update", "post-update", "post-receive", "reference-transaction"] {
        let file = path.join("hooks").join(hook);
        std::fs::write(&file, format!("#!/bin/sh\ntouch '{}'\n", mark.display())).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    git(&world.work, &["push", "-q", &served.url("demo"), "main:other"]).await;
    assert!(!mark.exists());
}
