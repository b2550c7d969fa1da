//! Files that somebody prepared: links in place of directories, privileges in the file system, files that tell or steer.

use ostler_sandbox::defence::Defence::{
    FewCapabilities, KnownHome, MaskedPaths, NoDevices, NoNewPrivileges, NoSuid, ReadOnlyPaths, TreeCheck,
};

use crate::row::Attempt::{Command, EndlessUsers, Link, Restored};
use crate::row::{Planted, Row, Without};
use crate::run::check;

/// Where libcontainer itself refuses what the check of the tree refuses before it.
const SECOND: Without = Without::Stopped("libcontainer 0.7.0 refuses to mount there, too");

pub const ROWS: &[Row] = &[
    Row {
        name: "a_link_in_place_of_dev",
        after: "CVE-2026-41579",
        tries: "have device nodes and links made outside the sandbox's root",
        attempt: Link("dev"),
        defences: &[TreeCheck],
        without: SECOND,
    },
    Row {
        name: "a_link_in_place_of_proc",
        after: "CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867",
        tries: "have /proc mounted elsewhere",
        attempt: Link("proc"),
        defences: &[TreeCheck],
        without: SECOND,
    },
    Row {
        name: "a_link_in_place_of_sys",
        after: "CVE-2025-54867",
        tries: "have /sys mounted elsewhere",
        attempt: Link("sys"),
        defences: &[TreeCheck],
        without: SECOND,
    },
    Row {
        name: "a_link_in_place_of_the_workspace",
        after: "CVE-2024-45310, CVE-2025-59532",
        tries: "move the workspace, which requests for files begin at",
        attempt: Link("workspace"),
        defences: &[TreeCheck],
        without: Without::Through,
    },
    Row {
        name: "a_user_database_that_never_ends",
        after: "CVE-2019-14271, CVE-2024-9341, CVE-2024-9676",
        tries: "have the maker of the sandbox read, or load code from, the sandbox's files",
        attempt: EndlessUsers,
        defences: &[KnownHome],
        without: Without::Through,
    },
    Row {
        name: "a_setuid_program",
        after: "CVE-2022-0847 and every page cache attack that ends in one",
        tries: "become root by the setuid bit of a program",
        attempt: Command(&["setuid"]),
        defences: &[NoNewPrivileges, NoSuid],
        without: Without::Through,
    },
    Row {
        name: "a_setuid_program_in_a_restored_tree",
        after: "CVE-2021-3493",
        tries: "the same with a program that lay in the files before",
        attempt: Restored(Planted::SetUid, &["as_another", "/workspace/planted"]),
        defences: &[NoNewPrivileges, NoSuid],
        without: Without::Through,
    },
    Row {
        name: "a_capability_in_a_restored_tree",
        after: "CVE-2021-3493, CVE-2023-0386",
        tries: "get a capability from a file",
        attempt: Restored(Planted::Capability, &["as_another", "/workspace/planted"]),
        defences: &[NoNewPrivileges, NoSuid],
        without: Without::Through,
    },
    Row {
        name: "a_device_in_a_restored_tree",
        after: "images with nodes of disks",
        tries: "open a device by a node in the files",
        attempt: Restored(Planted::Device, &["device", "/workspace/planted"]),
        defences: &[NoDevices],
        without: Without::Through,
    },
    Row {
        name: "a_null_device_that_is_a_link",
        after: "CVE-2025-31133, CVE-2025-62161",
        tries: "have masked files show another file than the null device",
        attempt: Restored(Planted::NullLink, &["look", "/proc/interrupts", "/proc/keys", "/proc/timer_list"]),
        defences: &[],
        without: Without::Stopped(
            "/dev is a file system of its own, made before any file is masked; without one libcontainer makes no sandbox",
        ),
    },
    Row {
        name: "files_that_tell_about_the_machine",
        after: "CVE-2025-31133",
        tries: "read counters and symbols of the kernel",
        attempt: Command(&["look", "/proc/interrupts", "/proc/softirqs", "/proc/kallsyms", "/sys/kernel/notes"]),
        defences: &[MaskedPaths],
        without: Without::Through,
    },
    Row {
        name: "files_that_steer_the_machine",
        after: "CVE-2022-0811, CVE-2025-52881, CVE-2025-62596",
        tries: "open for writing what names a program for crashes, sends keys to the kernel or turns routes around",
        attempt: Command(&[
            "steer",
            "/proc/sys/kernel/core_pattern",
            "/proc/sysrq-trigger",
            "/sys/kernel/uevent_helper",
            "/proc/sys/net/ipv4/conf/all/route_localnet",
        ]),
        defences: &[ReadOnlyPaths, FewCapabilities],
        without: Without::Through,
    },
];

/// CVE-2026-41579, seen with libcontainer 0.7.0.
#[tokio::test]
async fn a_link_in_place_of_dev() {
    check("a_link_in_place_of_dev").await;
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867.
#[tokio::test]
async fn a_link_in_place_of_proc() {
    check("a_link_in_place_of_proc").await;
}

/// CVE-2025-54867.
#[tokio::test]
async fn a_link_in_place_of_sys() {
    check("a_link_in_place_of_sys").await;
}

/// CVE-2024-45310, CVE-2025-59532.
#[tokio::test]
async fn a_link_in_place_of_the_workspace() {
    check("a_link_in_place_of_the_workspace").await;
}

/// CVE-2019-14271, CVE-2024-9341, CVE-2024-9676.
#[tokio::test]
async fn a_user_database_that_never_ends() {
    check("a_user_database_that_never_ends").await;
}

/// CVE-2022-0847.
#[tokio::test]
async fn a_setuid_program() {
    check("a_setuid_program").await;
}

/// CVE-2021-3493.
#[tokio::test]
async fn a_setuid_program_in_a_restored_tree() {
    check("a_setuid_program_in_a_restored_tree").await;
}

/// CVE-2021-3493, CVE-2023-0386.
#[tokio::test]
async fn a_capability_in_a_restored_tree() {
    check("a_capability_in_a_restored_tree").await;
}

/// Images with nodes of disks.
#[tokio::test]
async fn a_device_in_a_restored_tree() {
    check("a_device_in_a_restored_tree").await;
}

/// CVE-2025-31133, CVE-2025-62161.
#[tokio::test]
async fn a_null_device_that_is_a_link() {
    check("a_null_device_that_is_a_link").await;
}

/// CVE-2025-31133.
#[tokio::test]
async fn files_that_tell_about_the_machine() {
    check("files_that_tell_about_the_machine").await;
}

/// CVE-2022-0811, CVE-2025-52881, CVE-2025-62596.
#[tokio::test]
async fn files_that_steer_the_machine() {
    check("files_that_steer_the_machine").await;
}
