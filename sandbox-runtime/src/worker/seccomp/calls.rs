//! The system calls that a sandbox has, in groups with the reason for each, and those that it is refused on purpose.
//!
//! Names of both architectures stand side by side (`open` exists on x86-64 only); a name that the installed libseccomp does
//! not know is left out of the filter, so that the call gives `ENOSYS` there. What is in no table gives `ENOSYS` too, and
//! programs take their fallback: see [`ABSENT`] for the ones that were thought about.

/// What a group is for, and its names with spaces between.
pub(super) type Group = (&'static str, &'static str);

/// Calls that are allowed whatever their arguments are, by what programs need them for.
pub(super) const ALLOWED: &[Group] = &[
    (
        "open files and their contents",
        "open openat openat2 creat close close_range dup dup2 dup3 fcntl flock lseek read pread64 readv \
         preadv preadv2 write pwrite64 writev pwritev pwritev2 sendfile splice tee copy_file_range fadvise64 \
         readahead fallocate truncate ftruncate fsync fdatasync sync syncfs sync_file_range memfd_create pipe \
         pipe2",
    ),
    (
        "names, metadata and directories",
        "stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 getdents getdents64 \
         getcwd chdir fchdir rename renameat renameat2 mkdir mkdirat rmdir link linkat unlink unlinkat \
         symlink symlinkat readlink readlinkat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat \
         umask utime utimes futimesat utimensat inotify_init inotify_init1 inotify_add_watch inotify_rm_watch",
    ),
    (FIFOS, "mknod mknodat"),
    (
        "extended attributes",
        "getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr listxattrat setxattr \
         lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat",
    ),
    (DATABASES, "io_setup io_submit io_getevents io_pgetevents io_cancel io_destroy"),
    (
        "the process's own memory",
        "brk mmap munmap mremap mprotect madvise msync mincore mlock mlock2 mlockall munlock munlockall mseal \
         membarrier pkey_alloc pkey_free pkey_mprotect map_shadow_stack",
    ),
    (
        "making and ending processes; namespaces are a rule of their own",
        "fork vfork execve execveat exit exit_group wait4 waitid set_tid_address set_robust_list \
         get_robust_list rseq prctl arch_prctl seccomp",
    ),
    (
        "who a process is",
        "getpid getppid gettid getpgid getpgrp setpgid getsid setsid getuid geteuid getgid getegid getresuid \
         getresgid getgroups setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups \
         capget capset uname sysinfo",
    ),
    ("confining oneself further", "landlock_create_ruleset landlock_add_rule landlock_restrict_self"),
    (DEBUGGERS, "ptrace process_vm_readv process_vm_writev"),
    (
        "scheduling, limits and usage",
        "sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler \
         sched_setscheduler sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min \
         sched_rr_get_interval getcpu getpriority setpriority ioprio_get ioprio_set getrlimit setrlimit \
         getrusage times",
    ),
    (
        "time and timers",
        "time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep alarm getitimer setitimer \
         timer_create timer_settime timer_gettime timer_getoverrun timer_delete timerfd_create \
         timerfd_settime timerfd_gettime",
    ),
    (
        "signals",
        "kill tkill tgkill pidfd_open pidfd_send_signal rt_sigaction rt_sigprocmask rt_sigpending \
         rt_sigsuspend rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn sigaltstack signalfd \
         signalfd4 pause restart_syscall",
    ),
    (
        "waiting and locks",
        "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 \
         eventfd eventfd2 futex futex_waitv futex_wait futex_wake futex_requeue",
    ),
    (
        "sockets; making one is a rule of its own",
        "bind listen accept accept4 connect shutdown sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg getsockname \
         getpeername getsockopt setsockopt",
    ),
    (
        SHARED_MEMORY,
        "shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open \
         mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
    ),
    ("randomness", "getrandom"),
];

/// Groups of [`ALLOWED`] that a program which works on files has no use for.
pub(super) const NOT_FOR_FILES: &[&str] = &[FIFOS, DATABASES, DEBUGGERS, SHARED_MEMORY];

/// All that a process needs which reads one descriptor and fills one folder; each is in [`ALLOWED`] too.
pub(super) const UNPACKING: &[Group] = &[
    ("the archive, and files and their contents", "openat openat2 close fcntl lseek read pread64 readv write writev"),
    (
        "names, metadata and attributes",
        "fstat newfstatat statx mkdirat linkat symlinkat unlinkat mknodat fchmod fchown fchownat utimensat fsetxattr",
    ),
    ("its own memory", "brk mmap munmap mremap mprotect madvise"),
    ("its report, and its end", "sendmsg poll ppoll exit exit_group restart_syscall"),
    (
        "what the C and Rust libraries do by themselves",
        "futex getrandom clock_gettime getpid gettid tgkill rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack",
    ),
];

/// What it is refused on purpose, besides [`REFUSED`]: other processes and sockets. Everything else is not there.
pub(super) const NOT_FOR_UNPACKING: &str = "clone fork vfork execve execveat socket socketpair connect bind ptrace kill setuid setgid setresuid setresgid capset ioctl";

const FIFOS: &str = "fifos and sockets as files; a device needs a capability of the machine";
const DATABASES: &str = "asynchronous reading and writing of files, for databases and file servers";
const DEBUGGERS: &str = "debuggers and tracers, which reach no further than the process namespace and never PID 1";
const SHARED_MEMORY: &str =
    "shared memory, semaphores and queues of the sandbox's own IPC namespace, for PostgreSQL and fakeroot";

/// Calls that are refused with `EPERM` whatever their arguments are, by why.
pub(super) const REFUSED: &[Group] = &[
    (
        "mounting and other roots: the launcher lays out the sandbox's tree, nobody else",
        "mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick open_tree open_tree_attr \
         move_mount mount_setattr quotactl quotactl_fd",
    ),
    ("other namespaces: with them come capabilities that reach far more of the kernel", "unshare setns"),
    ("files by handle, which knows no directory's permission", "open_by_handle_at name_to_handle_at"),
    ("keys of the kernel, which are not kept apart as files are", "add_key request_key keyctl"),
    (
        "programs in the kernel, its counters and page faults: the usual ways to take it over",
        "bpf perf_event_open userfaultfd",
    ),
    ("watching a file system as a whole", "fanotify_init fanotify_mark"),
    ("descriptors and objects of other processes; debuggers need neither", "pidfd_getfd kcmp"),
    (
        "the machine itself: modules, other kernels, clocks, ports, power, accounting, its log",
        "init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct syslog \
         sethostname setdomainname settimeofday clock_settime adjtimex clock_adjtime iopl ioperm vhangup \
         lookup_dcookie nfsservctl",
    ),
];

/// Calls that the kernel of a sandbox seems not to have, each for a reason. They are in no other table: this one is the memory
/// of what was decided, and a test holds that it stays so.
#[cfg(test)]
pub(super) const ABSENT: &[Group] = &[
    ("its arguments lie in memory, where no filter sees the flags; programs fall back to clone", "clone3"),
    ("does what the filter refuses, past the filter", "io_uring_setup io_uring_enter io_uring_register"),
    (
        "placement on memory nodes, which is the machine's affair; libnuma then says that there is none",
        "mbind get_mempolicy set_mempolicy set_mempolicy_home_node migrate_pages move_pages",
    ),
    ("maps pages of others into pipes: part of two known attacks, used by almost nobody", "vmsplice"),
    ("memory that not even the machine's owner can look at", "memfd_secret"),
    ("tells what others read of layers that are shared", "cachestat"),
    ("segments of 16-bit programs", "modify_ldt set_thread_area get_thread_area"),
    ("for memory managers over other processes", "process_madvise process_mrelease"),
    ("replaced by emulation long ago", "remap_file_pages"),
    (
        "new ways to read what /proc tells, with more of the kernel behind them",
        "statmount listmount listns lsm_get_self_attr lsm_set_self_attr lsm_list_modules",
    ),
    ("new attributes of files, which nothing needs yet", "file_getattr file_setattr"),
    ("probes of debuggers in the kernel", "uretprobe uprobe"),
    ("remains of old kernels", "uselib ustat sysfs _sysctl epoll_ctl_old epoll_wait_old"),
];

/// Names in the tables above that libseccomp 2.5.4 knows in part at most, with their number, which is the same on every
/// architecture. Where it is older than the call, the call gives `ENOSYS`.
#[cfg(test)]
pub(super) const NEWER: &[(&str, u32)] = &[
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
];
