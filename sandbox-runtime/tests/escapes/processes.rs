//! What a process might get from the one that made it: descriptors, capabilities, the program of PID 1.

use ostler_sandbox::defence::Defence::{NoForeignDescriptors, NoInheritance, SealedGuest};

use ostler_sandbox::client::guest::GuestError;

use crate::inside::Inside;
use crate::row::Attempt::{Command, ForeignDirectory, GuestProgram};
use crate::row::{Row, Without};
use crate::run::check;
use crate::support::{Bench, words};

pub const ROWS: &[Row] = &[
    Row {
        name: "a_descriptor_of_the_machine",
        after: "CVE-2024-21626",
        tries: "read a file of the machine through a directory that was left open",
        attempt: ForeignDirectory,
        defences: &[NoForeignDescriptors],
        without: Without::Through,
    },
    Row {
        name: "a_capability_that_is_inherited",
        after: "CVE-2022-29162, CVE-2025-27612",
        tries: "find a capability in the inheritable or ambient set",
        attempt: Command(&["inherit"]),
        defences: &[NoInheritance],
        without: Without::Through,
    },
    Row {
        name: "the_program_of_every_sandbox",
        after: "CVE-2019-5736",
        tries: "overwrite the program that PID 1 runs, so that later sandboxes run another one",
        attempt: GuestProgram,
        defences: &[SealedGuest],
        without: Without::Through,
    },
    Row {
        name: "the_memory_and_descriptors_of_pid_1",
        after: "CVE-2019-5736, CVE-2016-9962",
        tries: "trace PID 1, or open its memory, its socket or its program",
        attempt: Command(&["debug", "1"]),
        defences: &[],
        without: Without::Stopped(
            "the guest itself says that it may not be dumped, as its first act; see its own tests",
        ),
    },
];

/// CVE-2024-21626.
#[tokio::test]
async fn a_descriptor_of_the_machine() {
    check("a_descriptor_of_the_machine").await;
}

/// CVE-2024-21626: the directory of a command, by what its maker has open.
#[tokio::test]
async fn a_working_directory_by_its_descriptor_leads_nowhere() {
    let bench = Bench::with(|config| config.guest = None);
    let (launcher, _) = bench.connect(1).await;
    let inside = Inside::make(&bench, &launcher, &bench.id(1)).await;
    let mut refused = 0;
    for number in 0..24 {
        for up in ["", "/..", "/../../.."] {
            // The image has no such file, and every machine has it.
            let attempt = ["try", "look", "etc/os-release", "../etc/os-release", "../../../etc/os-release"];
            match inside.run_in(&format!("/proc/self/fd/{number}{up}"), &attempt).await {
                Ok(outcome) => assert_eq!(outcome.status, 1, "{number}{up}: {}", outcome.said),
                Err(GuestError::Refused { .. }) => refused += 1,
                Err(error) => panic!("{}", words(&error)),
            }
        }
    }
    assert!(refused > 48, "only {refused} were refused");
}

/// CVE-2022-29162, CVE-2025-27612.
#[tokio::test]
async fn a_capability_that_is_inherited() {
    check("a_capability_that_is_inherited").await;
}

/// CVE-2019-5736.
#[tokio::test]
async fn the_program_of_every_sandbox() {
    check("the_program_of_every_sandbox").await;
}

/// CVE-2019-5736, CVE-2016-9962.
#[tokio::test]
async fn the_memory_and_descriptors_of_pid_1() {
    check("the_memory_and_descriptors_of_pid_1").await;
}
