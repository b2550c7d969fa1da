//! What every process in a sandbox is, and what it cannot do.

use std::collections::BTreeMap;
use std::fs;

use ostler_wire::launcher::Files;

use crate::support::{Bench, LIMITS, PATIENCE, ask, done, processes_of, words};

/// Fields of `/proc/<pid>/status`.
fn status(pid: i32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

#[tokio::test]
async fn every_process_in_a_sandbox_is_confined() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let started = bench.create(&launcher, &bench.id(1)).await;
    done(&started.control, "spawn");
    let base = started.info.uid_base;
    let processes = processes_of(base);
    assert!(processes.contains(&started.info.pid) && processes.len() == 2, "{processes:?}");
    for pid in processes {
        for namespace in ["user", "net", "pid", "mnt", "ipc", "uts", "cgroup"] {
            let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{namespace}")).unwrap();
            assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
        }
        for map in ["uid_map", "gid_map"] {
            let text = fs::read_to_string(format!("/proc/{pid}/{map}")).unwrap();
            let fields: Vec<&str> = text.split_whitespace().collect();
            assert_eq!(fields, ["0", &base.to_string(), "65536"]);
        }
        let status = status(pid);
        let field = |name: &str| status[name].as_str();
        assert_eq!((field("Seccomp"), field("NoNewPrivs"), field("Groups")), ("2", "1", ""));
        assert_eq!((field("CapInh"), field("CapAmb")), ("0000000000000000", "0000000000000000"));
        // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE
        let expected = "00000000000004fb";
        assert_eq!((field("CapBnd"), field("CapEff"), field("CapPrm")), (expected, expected, expected));
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "500");
        // The unified leaf is for killing, the others are for limits.
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let unified = fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - cgroup2 ");
        let counts = |line: &&str| {
            let limits = ["memory", "pids", "cpu", "devices"];
            let named = |line: &str| {
                line.split(':').nth(1).is_some_and(|list| list.split(',').any(|name| limits.contains(&name)))
            };
            named(line) || unified && line.starts_with("0::")
        };
        for line in groups.lines().filter(counts) {
            assert!(line.ends_with(&bench.id(1)), "{line}");
        }
    }
}

#[tokio::test]
async fn pid_1_has_its_own_descriptors_and_environment_only() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let started = bench.create(&launcher, &bench.id(1)).await;
    let descriptors = done(&started.control, "descriptors");
    let mut parts: Vec<&str> = descriptors.split(' ').collect();
    // The directory that is being read.
    parts.retain(|part| !part.contains("/proc/"));
    assert!(parts.len() == 4 && parts[3].starts_with("3=socket:"), "{descriptors}");
    assert_eq!(parts[..3], ["0=/dev/null", "1=/dev/null", "2=/dev/null"]);
    assert_eq!(done(&started.control, "environment"), "PATH");
    // A link to what is masked, where the kernel has it.
    let devices = done(&started.control, "list /dev").replace("kcore ", "");
    assert_eq!(devices, "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero");
    let mounts = done(&started.control, "read /proc/self/mountinfo");
    assert!(!mounts.contains(bench.directory.path().to_str().unwrap()), "{mounts}");
    assert!(!mounts.contains("/sys/fs/cgroup"), "{mounts}");
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.contains("nosuid") && root.contains("nodev") && root.contains("userxattr"), "{root}");
}

#[tokio::test]
async fn the_guest_program_cannot_be_changed_from_inside() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let started = bench.create(&launcher, &bench.id(1)).await;
    let answer = ask(&started.control, "write /proc/1/exe changed");
    assert!(answer.starts_with("err"), "{answer}");
}

/// Each call with its arguments and the errno that it must give.
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn refused_calls_give_the_errno_that_was_chosen() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let started = bench.create(&launcher, &bench.id(1)).await;
    let none: &[i64] = &[];
    let socket =
        |family: i32, kind: i32, protocol: i32| [libc::SYS_socket, family.into(), kind.into(), protocol.into()];
    let plain = |number: i64| [number, 0, 0, 0];
    for (call, errno) in [
        (plain(libc::SYS_mount), libc::EPERM),
        (plain(libc::SYS_umount2), libc::EPERM),
        (plain(libc::SYS_pivot_root), libc::EPERM),
        (plain(libc::SYS_fsopen), libc::EPERM),
        (plain(libc::SYS_open_tree), libc::EPERM),
        (plain(libc::SYS_move_mount), libc::EPERM),
        (plain(libc::SYS_mount_setattr), libc::EPERM),
        ([libc::SYS_unshare, libc::CLONE_NEWUSER.into(), 0, 0], libc::EPERM),
        (plain(libc::SYS_setns), libc::EPERM),
        ([libc::SYS_clone, libc::CLONE_NEWUSER.into(), 0, 0], libc::EPERM),
        ([libc::SYS_clone, (libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::SIGCHLD).into(), 0, 0], libc::EPERM),
        ([libc::SYS_clone, libc::CLONE_NEWNET.into(), 0, 0], libc::EPERM),
        (plain(libc::SYS_clone3), libc::ENOSYS),
        (plain(libc::SYS_keyctl), libc::EPERM),
        (plain(libc::SYS_add_key), libc::EPERM),
        (plain(libc::SYS_request_key), libc::EPERM),
        (plain(libc::SYS_bpf), libc::EPERM),
        (plain(libc::SYS_perf_event_open), libc::EPERM),
        // The flag that lets unprivileged processes use it.
        ([libc::SYS_userfaultfd, 1, 0, 0], libc::EPERM),
        (plain(libc::SYS_io_uring_setup), libc::ENOSYS),
        (plain(libc::SYS_io_uring_enter), libc::ENOSYS),
        (plain(libc::SYS_open_by_handle_at), libc::EPERM),
        (plain(libc::SYS_kexec_load), libc::EPERM),
        (plain(libc::SYS_finit_module), libc::EPERM),
        (plain(libc::SYS_init_module), libc::EPERM),
        (plain(libc::SYS_name_to_handle_at), libc::EPERM),
        (plain(libc::SYS_pidfd_getfd), libc::EPERM),
        (plain(libc::SYS_fanotify_init), libc::EPERM),
        (plain(libc::SYS_chroot), libc::EPERM),
        (plain(libc::SYS_syslog), libc::EPERM),
        // What no table names.
        (plain(libc::SYS_modify_ldt), libc::ENOSYS),
        (plain(libc::SYS_vmsplice), libc::ENOSYS),
        (plain(libc::SYS_memfd_secret), libc::ENOSYS),
        (plain(libc::SYS_set_mempolicy), libc::ENOSYS),
        (plain(457), libc::ENOSYS),
        (plain(9999), libc::ENOSYS),
        ([libc::SYS_personality, 0x0040_0000, 0, 0], libc::ENOSYS),
        ([libc::SYS_ioctl, 0, 0x5412, 0], libc::EPERM),
        ([libc::SYS_ioctl, 0, 0x541c, 0], libc::EPERM),
        // The kernel looks at the lower half only (CVE-2019-10063).
        ([libc::SYS_ioctl, 0, (1 << 32) | 0x5412, 0], libc::EPERM),
        (socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0), libc::EAFNOSUPPORT),
        (socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0), libc::EAFNOSUPPORT),
        (socket(libc::AF_PACKET, libc::SOCK_RAW, 0), libc::EAFNOSUPPORT),
        (socket(libc::AF_RXRPC, libc::SOCK_DGRAM, libc::AF_INET), libc::EAFNOSUPPORT),
        (socket(libc::AF_KEY, libc::SOCK_RAW, 2), libc::EAFNOSUPPORT),
        (socket(libc::AF_XDP, libc::SOCK_RAW, 0), libc::EAFNOSUPPORT),
        ([libc::SYS_socket, (1 << 32) | i64::from(libc::AF_ALG), libc::SOCK_SEQPACKET.into(), 0], libc::EAFNOSUPPORT),
        (socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER), libc::EPROTONOSUPPORT),
        (socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_XFRM), libc::EPROTONOSUPPORT),
        (socket(libc::AF_INET, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP), libc::EPROTONOSUPPORT),
        (socket(libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_MPTCP), libc::EPROTONOSUPPORT),
        (socket(libc::AF_INET, libc::SOCK_DCCP, libc::IPPROTO_DCCP), libc::EPROTONOSUPPORT),
        (socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP), libc::EPERM),
        // What programs need goes on working.
        (socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE), 0),
        (socket(libc::AF_INET, libc::SOCK_STREAM, 0), 0),
        (socket(libc::AF_INET6, libc::SOCK_DGRAM, 0), 0),
        (socket(libc::AF_UNIX, libc::SOCK_STREAM, 0), 0),
        ([libc::SYS_clone, libc::SIGCHLD.into(), 0, 0], 0),
        ([libc::SYS_personality, 0xffff_ffff, 0, 0], 0),
        ([libc::SYS_personality, -1, 0, 0], 0),
        // ADDR_NO_RANDOMIZE
        ([libc::SYS_personality, 0x0004_0000, 0, 0], 0),
        // The kernel answers: descriptor 0 is no terminal, and there is no such descriptor.
        ([libc::SYS_ioctl, 0, libc::TCGETS as i64, 0], libc::ENOTTY),
        ([libc::SYS_setsockopt, 9, 1, 1], libc::EBADF),
    ] {
        let words: Vec<String> = call.iter().chain(none).map(i64::to_string).collect();
        assert_eq!(done(&started.control, &format!("syscall {}", words.join(" "))), errno.to_string(), "{call:?}");
    }
    let getpid = 20;
    assert_eq!(done(&started.control, &format!("i386 {getpid}")), format!("killed {}", libc::SIGSYS));
    let x32 = 0x4000_0000 + libc::SYS_getpid;
    assert_eq!(done(&started.control, &format!("syscall {x32}")), format!("killed {}", libc::SIGSYS));
}

#[tokio::test]
async fn system_files_are_masked_or_read_only() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let started = bench.create(&launcher, &bench.id(1)).await;
    for path in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/uevent_seqnum"] {
        assert!(ask(&started.control, &format!("write {path} x")).starts_with("err"), "{path}");
    }
    for path in ["/proc/timer_list", "/proc/keys", "/proc/interrupts"] {
        assert_eq!(done(&started.control, &format!("read {path}")), "", "{path}");
    }
}

#[tokio::test]
async fn a_tree_whose_dev_became_a_link_is_refused_and_the_host_is_untouched() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let trap = bench.directory.path().join("trap");
    fs::create_dir(&trap).unwrap();
    for (number, name) in ["dev", "proc", "sys", "tmp", "workspace"].into_iter().enumerate() {
        let id = bench.id(number as u32);
        bench.create(&launcher, &id).await;
        launcher.destroy(&id, Files::Keep).await.unwrap();
        // What a process in the sandbox may leave in its upper, as it lies on the disk.
        let place = bench.files(&id).join("upper").join(name);
        let _ = fs::remove_dir_all(&place);
        std::os::unix::fs::symlink(&trap, &place).unwrap();
        let refused = launcher.create(&id, &bench.image, LIMITS, PATIENCE).await.unwrap_err();
        let expected = format!("check tree: /{name} must be a directory and no link");
        assert!(words(&refused).contains(&expected), "{}", words(&refused));
        bench.assert_nothing_left(&id);
        assert_eq!(fs::read_dir(&trap).unwrap().count(), 0, "{name}");
        assert!(bench.files(&id).exists(), "a refused tree is kept");
    }
}

/// libcontainer must ask the C library for nobody's name or home in the sandbox's root, which would load code from there.
#[tokio::test]
async fn no_user_database_of_the_sandbox_is_opened_while_it_is_made() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let id = bench.id(1);
    bench.create(&launcher, &id).await;
    launcher.destroy(&id, Files::Keep).await.unwrap();
    let etc = bench.files(&id).join("upper/etc");
    fs::create_dir_all(&etc).unwrap();
    for name in ["nsswitch.conf", "passwd", "group"] {
        // Opening one of these waits for ever.
        let path = std::ffi::CString::new(etc.join(name).into_os_string().into_encoded_bytes()).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    }
    let started = launcher.create(&id, &bench.image, LIMITS, std::time::Duration::from_secs(5)).await.unwrap();
    done(&started.control, "ping");
}

#[tokio::test]
async fn a_process_cannot_change_the_limits_of_another() {
    let bench = Bench::new();
    let (launcher, _) = bench.connect(1).await;
    let started = bench.create(&launcher, &bench.id(1)).await;
    let prlimit = |pid: i64| format!("syscall {} {pid} {} 0 0", libc::SYS_prlimit64, libc::RLIMIT_NOFILE);
    assert_eq!(done(&started.control, &prlimit(1)), libc::EPERM.to_string());
    assert_eq!(done(&started.control, &prlimit(0)), "0");
}
