//! What lies beside the sandbox on the machine: sockets without a file, shared memory.

use ostler_sandbox::defence::Defence::{OwnIpc, OwnNetwork};

use crate::row::Attempt::{AbstractSocket, SharedMemory};
use crate::row::{Row, Without};
use crate::run::check;

pub const ROWS: &[Row] = &[
    Row {
        name: "an_abstract_socket_of_the_machine",
        after: "CVE-2020-15257",
        tries: "connect to a socket that has a name but no file",
        attempt: AbstractSocket,
        defences: &[OwnNetwork],
        without: Without::Through,
    },
    Row {
        name: "shared_memory_of_the_machine",
        after: "containers with the machine's IPC namespace",
        tries: "find a segment of shared memory by its key",
        attempt: SharedMemory,
        defences: &[OwnIpc],
        without: Without::Through,
    },
];

/// CVE-2020-15257.
#[tokio::test]
async fn an_abstract_socket_of_the_machine() {
    check("an_abstract_socket_of_the_machine").await;
}

/// Containers with the machine's IPC namespace.
#[tokio::test]
async fn shared_memory_of_the_machine() {
    check("shared_memory_of_the_machine").await;
}
