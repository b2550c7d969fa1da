//! The embedded guest: the static program itself, started the way the launcher starts it, but in no container.

#![expect(unsafe_code, reason = "the control socket must be put on its number between fork and exec")]

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use ostler_sandbox::client::guest::{Deadlines, Guest, GuestError};
use ostler_sandbox::guest_image;
use ostler_wire::FailureKind;
use ostler_wire::guest::{CONTROL_FD, Exec, Overflow, Stdio as Streams};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::io::AsyncReadExt;

fn start() -> (Child, OwnedFd) {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let mut image = std::fs::File::from(memfd_create("guest", MemfdFlags::empty()).unwrap());
    image.write_all(guest_image::bytes()).unwrap();
    let mut command = Command::new(format!("/proc/self/fd/{}", image.as_raw_fd()));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let control = theirs.as_raw_fd();
    // SAFETY: only calls that are allowed between fork and exec; both descriptors are open in the child.
    unsafe {
        command.pre_exec(move || match libc::dup2(control, CONTROL_FD) {
            -1 => Err(std::io::Error::last_os_error()),
            _ if control == CONTROL_FD => match libc::fcntl(control, libc::F_SETFD, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            },
            _ => Ok(()),
        });
    }
    (command.spawn().unwrap(), ours)
}

#[tokio::test]
async fn the_embedded_guest_runs_programs_and_ends_with_its_link() {
    let (mut child, control) = start();
    let guest = Guest::connect(control, 1, Deadlines::default()).await.unwrap();
    let exec = Exec {
        call: "a".into(),
        argv: vec!["/bin/sh".into(), "-c".into(), "echo $PPID; umask; pwd; exec ls /proc/self/fd".into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: "/".into(),
        timeout_ms: 20_000,
        output_limit: 1000,
        overflow: Overflow::End,
        stdio: Streams::Merged,
        label: String::new(),
    };
    let mut running = guest.exec(exec).await.unwrap();
    let mut output = String::new();
    running.output.read_to_string(&mut output).await.unwrap();
    let (supervisor, rest) = output.split_once('\n').unwrap();
    assert_eq!(rest, "0022\n/\n0\n1\n2\n3\n");
    assert_ne!(supervisor, child.id().to_string(), "the command runs below a supervisor");
    assert_eq!(running.exit().await.unwrap().exit.unwrap().status, 0);
    // Paths are taken below /workspace, which this machine may have or not.
    match guest.read_file("/etc/passwd", 10).await.unwrap_err() {
        GuestError::Refused { failure, .. } => assert_eq!(failure.kind, FailureKind::Outside),
        other => panic!("{other:?}"),
    }
    drop((guest, running));
    let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn without_a_control_socket_the_guest_says_so_and_ends() {
    let mut image = tempfile::NamedTempFile::new().unwrap();
    image.write_all(guest_image::bytes()).unwrap();
    let path = image.into_temp_path();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new(&path).env_clear().stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "ostler-guest: the start failed: Bad file descriptor (os error 9)\n"
    );
}
