//! What would need two at a time: a sandbox that changes its files while they are transferred, or while another is made of them.

use ostler_sandbox::client::guest::GuestError;
use ostler_wire::launcher::Files;

use crate::inside::Inside;
use crate::support::{Bench, LIMITS, PATIENCE, words};

/// CVE-2018-15664: `directory/file` is a file of the workspace at one moment, and behind a link the next.
#[tokio::test]
async fn directories_swapped_during_a_transfer() {
    let bench = Bench::with(|config| config.guest = None);
    let (launcher, _) = bench.connect(1).await;
    let inside = Inside::make(&bench, &launcher, &bench.id(1)).await;
    // The same path on the machine and in the sandbox, outside of the workspace.
    let outside = bench.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "the machine's").unwrap();
    inside.guest.write_file("directory/file", b"the workspace's", 0o644).await.unwrap();
    let swapper = inside.run(&["swap", "/workspace/directory", "/workspace/link", outside.to_str().unwrap()]).await;
    assert_eq!(swapper.status, 0, "{}", swapper.said);
    let (mut read, mut refused) = (0, 0);
    // Until both have been seen often, which shows that the race was run.
    while read < 50 || refused < 50 {
        match inside.guest.read_file("directory/file", 100).await {
            Ok(file) => {
                assert!(file.bytes.starts_with(b"the workspace's"), "{:?}", String::from_utf8_lossy(&file.bytes));
                read += 1;
            }
            Err(GuestError::Refused { .. }) => refused += 1,
            Err(error) => panic!("{}", words(&error)),
        }
        match inside.guest.write_file("directory/file", b"the workspace's, again", 0o644).await {
            Ok(()) | Err(GuestError::Refused { .. }) => {}
            Err(error) => panic!("{}", words(&error)),
        }
    }
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "the machine's");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    let elsewhere = inside.run(&["try", "open", outside.join("file").to_str().unwrap()]).await;
    assert_eq!(elsewhere.said, "through: 9 bytes", "what lies there in the sandbox is untouched too");
}

/// CVE-2021-30465 and its kin need two containers with a volume in common.
#[tokio::test]
async fn two_sandboxes_never_have_the_same_files() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    bench.create(&launcher, &id).await;
    let second = launcher.create(&id, &bench.image, LIMITS, PATIENCE).await.unwrap_err();
    assert!(words(&second).ends_with("exists already"), "{}", words(&second));
    // Kept files are taken by one of two that ask for them at one time.
    launcher.destroy(&id, Files::Keep).await.unwrap();
    let ask = || launcher.create(&id, &bench.image, LIMITS, PATIENCE);
    let (one, other) = tokio::join!(ask(), ask());
    assert!(one.is_ok() != other.is_ok(), "{:?} {:?}", one.is_ok(), other.is_ok());
}
