//! Reaching parts of the kernel that processes got out through: namespaces, mounts, firewalls, keys, families of sockets.

use ostler_sandbox::defence::Defence::{FewCapabilities, SystemCallFilter};

use crate::row::{Attempt::Command, Row, Without};
use crate::run::check;

pub const ROWS: &[Row] = &[
    Row {
        name: "a_user_namespace_of_its_own",
        after: "CVE-2022-0185, CVE-2022-0492, CVE-2024-1086",
        tries: "become root of a new user namespace, where most of these begin",
        attempt: Command(&["namespace"]),
        defences: &[SystemCallFilter],
        without: Without::Through,
    },
    Row {
        name: "a_mount_of_its_own",
        after: "CVE-2025-31133, CVE-2025-52881",
        tries: "mount a file system over what is there",
        attempt: Command(&["mount"]),
        defences: &[SystemCallFilter],
        without: Without::Through,
    },
    Row {
        name: "an_overlay_that_copies_privileges_up",
        after: "CVE-2021-3493, CVE-2023-0386, CVE-2023-2640, CVE-2023-32629",
        tries: "mount an overlay, which copies files with their setuid bits and capabilities",
        attempt: Command(&["overlay"]),
        defences: &[SystemCallFilter],
        without: Without::Through,
    },
    Row {
        name: "a_release_agent_of_control_groups",
        after: "CVE-2022-0492",
        tries: "mount control groups, where one file names a program that the machine's root runs",
        attempt: Command(&["release_agent"]),
        defences: &[SystemCallFilter],
        without: Without::Through,
    },
    Row {
        name: "a_file_system_by_its_configuration",
        after: "CVE-2022-0185",
        tries: "open a file system's context for configuration",
        attempt: Command(&["fsopen"]),
        defences: &[SystemCallFilter],
        without: Without::Through,
    },
    Row {
        name: "a_firewall_of_its_own",
        after: "CVE-2021-22555, CVE-2024-1086, CVE-2026-23111, CVE-2026-46324",
        tries: "talk to nf_tables as root of a new network namespace",
        attempt: Command(&["netfilter"]),
        defences: &[SystemCallFilter],
        without: Without::Through,
    },
    Row {
        name: "a_socket_that_writes_the_page_cache",
        after: "CVE-2026-31431, CVE-2026-43284, CVE-2026-43500",
        tries: "open sockets of AF_ALG, AF_RXRPC, AF_KEY, AF_VSOCK, XFRM or the firewall",
        attempt: Command(&["families"]),
        defences: &[SystemCallFilter],
        without: Without::Through,
    },
    Row {
        name: "a_keyring_of_the_kernel",
        after: "CVE-2016-0728",
        tries: "use keys of the kernel, which users of different namespaces share",
        attempt: Command(&["keys"]),
        defences: &[SystemCallFilter],
        without: Without::Through,
    },
    Row {
        name: "typing_into_a_terminal",
        after: "CVE-2016-2568, CVE-2017-5226, CVE-2019-10063",
        tries: "type a command for whoever uses the same terminal",
        attempt: Command(&["type"]),
        defences: &[SystemCallFilter],
        without: Without::Through,
    },
    Row {
        name: "a_file_by_its_handle",
        after: "CVE-2026-43391, CVE-2026-43403, the first escape from Docker (2014)",
        tries: "open a file by its handle, past every directory's permission",
        attempt: Command(&["handle"]),
        defences: &[SystemCallFilter, FewCapabilities],
        without: Without::Through,
    },
    Row {
        name: "a_raw_socket",
        after: "CVE-2020-14386",
        tries: "send packets of any kind",
        attempt: Command(&["raw_socket"]),
        defences: &[FewCapabilities],
        without: Without::Through,
    },
    Row {
        name: "the_interface_of_the_door",
        after: "the design of the door",
        tries: "take down the interface that holds the rules of the network",
        attempt: Command(&["interface"]),
        defences: &[FewCapabilities],
        without: Without::Through,
    },
];

/// CVE-2022-0185, CVE-2022-0492, CVE-2024-1086.
#[tokio::test]
async fn a_user_namespace_of_its_own() {
    check("a_user_namespace_of_its_own").await;
}

/// CVE-2025-31133, CVE-2025-52881.
#[tokio::test]
async fn a_mount_of_its_own() {
    check("a_mount_of_its_own").await;
}

/// CVE-2021-3493, CVE-2023-0386, CVE-2023-2640, CVE-2023-32629.
#[tokio::test]
async fn an_overlay_that_copies_privileges_up() {
    check("an_overlay_that_copies_privileges_up").await;
}

/// CVE-2022-0492.
#[tokio::test]
async fn a_release_agent_of_control_groups() {
    check("a_release_agent_of_control_groups").await;
}

/// CVE-2022-0185.
#[tokio::test]
async fn a_file_system_by_its_configuration() {
    check("a_file_system_by_its_configuration").await;
}

/// CVE-2021-22555, CVE-2024-1086, CVE-2026-23111, CVE-2026-46324.
#[tokio::test]
async fn a_firewall_of_its_own() {
    check("a_firewall_of_its_own").await;
}

/// CVE-2026-31431, CVE-2026-43284, CVE-2026-43500.
#[tokio::test]
async fn a_socket_that_writes_the_page_cache() {
    check("a_socket_that_writes_the_page_cache").await;
}

/// CVE-2016-0728.
#[tokio::test]
async fn a_keyring_of_the_kernel() {
    check("a_keyring_of_the_kernel").await;
}

/// CVE-2016-2568, CVE-2017-5226, CVE-2019-10063.
#[tokio::test]
async fn typing_into_a_terminal() {
    check("typing_into_a_terminal").await;
}

/// CVE-2026-43391, CVE-2026-43403.
#[tokio::test]
async fn a_file_by_its_handle() {
    check("a_file_by_its_handle").await;
}

/// CVE-2020-14386.
#[tokio::test]
async fn a_raw_socket() {
    check("a_raw_socket").await;
}

/// The door's rules hold for what runs behind its one interface.
#[tokio::test]
async fn the_interface_of_the_door() {
    check("the_interface_of_the_door").await;
}
