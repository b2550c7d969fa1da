//! Every check: its id, its group and what it looks at, in the order in which a tired person should read them. A table.

/// Checks that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// What the operator chose.
    Configuration,
    /// What the kernel can and allows.
    Kernel,
    /// What limits sandboxes.
    ControlGroups,
    /// What this user and the host's user may.
    Rights,
    /// Where the data lies.
    Disk,
    /// The data itself.
    Data,
    /// What the host runs.
    Programs,
    /// What sandboxes are made from.
    Images,
    /// Who decides.
    Plugins,
    /// Who thinks.
    Models,
    /// What time it is.
    Clock,
    /// The host that runs, and where it listens.
    Host,
}

impl Group {
    /// All, in order.
    pub const ALL: [Self; 12] = [
        Self::Configuration,
        Self::Kernel,
        Self::ControlGroups,
        Self::Rights,
        Self::Disk,
        Self::Data,
        Self::Programs,
        Self::Images,
        Self::Plugins,
        Self::Models,
        Self::Clock,
        Self::Host,
    ];

    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Kernel => "kernel",
            Self::ControlGroups => "control_groups",
            Self::Rights => "rights",
            Self::Disk => "disk",
            Self::Data => "data",
            Self::Programs => "programs",
            Self::Images => "images",
            Self::Plugins => "plugins",
            Self::Models => "models",
            Self::Clock => "clock",
            Self::Host => "host",
        }
    }

    /// Its title.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Configuration => "Configuration",
            Self::Kernel => "Kernel",
            Self::ControlGroups => "Control groups",
            Self::Rights => "Rights",
            Self::Disk => "Disk",
            Self::Data => "Data folder",
            Self::Programs => "Programs",
            Self::Images => "Images",
            Self::Plugins => "Plugins",
            Self::Models => "Models",
            Self::Clock => "Clock",
            Self::Host => "Host",
        }
    }
}

/// A check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its stable id: the group's name, a dot, its own.
    pub id: &'static str,
    /// Its group.
    pub group: Group,
    /// What it looks at.
    pub looks_at: &'static str,
}

/// The check with an id.
#[must_use]
pub fn find(id: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.id == id)
}

const fn entry(id: &'static str, group: Group, looks_at: &'static str) -> Entry {
    Entry { id, group, looks_at }
}

/// Every check, in order.
pub const ENTRIES: &[Entry] = &[
    entry(
        "configuration.file",
        Group::Configuration,
        "the file, the environment and the flags, all that is wrong in them",
    ),
    entry("kernel.version", Group::Kernel, "the version, against the oldest that is supported"),
    entry(
        "kernel.holes",
        Group::Kernel,
        "the version, against those that fix holes which no filter of ours can be tested to close",
    ),
    entry(
        "kernel.namespaces",
        Group::Kernel,
        "every kind of namespace of a sandbox, made in a child; `user.max_user_namespaces`",
    ),
    entry(
        "kernel.overlay",
        Group::Kernel,
        "an overlay as a sandbox's root gets it, mounted in a child on the disk of the data folder, and written to",
    ),
    entry("kernel.idmapped_mounts", Group::Kernel, "an idmapped mount on the disk of the data folder, made in a child"),
    entry(
        "kernel.nftables",
        Group::Kernel,
        "loopback, route and rules of a sandbox's door, set up in a new network namespace by netlink, without the program `nft`",
    ),
    entry("kernel.seccomp", Group::Kernel, "a filter of system calls, loaded in a child"),
    entry("kernel.memory_files", Group::Kernel, "the guest, executed from a sealed memory file; `vm.memfd_noexec`"),
    entry("kernel.descriptors", Group::Kernel, "whether sockets can refuse descriptors (`SO_PASSRIGHTS`)"),
    entry("control_groups.controllers", Group::ControlGroups, "versions, and whether memory, pids and cpu are there"),
    entry(
        "control_groups.gaps",
        Group::ControlGroups,
        "limits that this machine does without: swap that is not counted, lack of memory that nobody hears of, disks without weights",
    ),
    entry(
        "control_groups.limits",
        Group::ControlGroups,
        "a process started in a group of its own, as the kernel does at once with `CLONE_INTO_CGROUP`, and limited as a sandbox would be",
    ),
    entry(
        "rights.root",
        Group::Rights,
        "whether this is root; if not, whether this user may have a user namespace, and for how many sandboxes",
    ),
    entry("rights.user", Group::Rights, "the system user of the host, or what would make it"),
    entry("rights.open_files", Group::Rights, "the hard limit of open files, which the host takes"),
    entry("rights.processes", Group::Rights, "the limit of processes and threads of a user"),
    entry("disk.path", Group::Disk, "whether the host's user can walk to the data folder"),
    entry("disk.file_system", Group::Disk, "the kind of file system under the data folder, and whether it is writable"),
    entry("disk.space", Group::Disk, "free room there"),
    entry("disk.inodes", Group::Disk, "free places for files there"),
    entry("data.folder", Group::Data, "whether it is there, and whether its owners may write"),
    entry("data.version", Group::Data, "the formats of index and session logs"),
    entry("data.lock", Group::Data, "whether a host uses it"),
    entry("data.launcher", Group::Data, "a launcher that an earlier host left"),
    entry("data.lost", Group::Data, "files of sandboxes that nobody knows the owner of"),
    entry("data.token", Group::Data, "the file of the API token, and who may read it"),
    entry("programs.git", Group::Programs, "git in `PATH`, and its version"),
    entry("images.present", Group::Images, "the image of workspaces, with its layers"),
    entry("images.age", Group::Images, "when it was imported"),
    entry("plugins.load", Group::Plugins, "each configured plugin, loaded as at a start"),
    entry("models.default", Group::Models, "the model of sessions that name none, as a start would judge it"),
    entry("models.key", Group::Models, "for each provider, where its key comes from; the key is never shown"),
    entry("models.certificates", Group::Models, "certificates of authorities, for providers over `https`"),
    entry("models.reachable", Group::Models, "each provider that can be asked, asked for its list of models"),
    entry("models.name", Group::Models, "whether that list has the default model"),
    entry("clock.time", Group::Clock, "whether it is later than the newest file that is known"),
    entry("clock.synchronised", Group::Clock, "whether a time service told the kernel that the clock is right"),
    entry("clock.offset", Group::Clock, "how far the clock is off from that of each provider that answers"),
    entry("host.running", Group::Host, "whether the host that says that it runs here answers, and with which version"),
    entry("host.port", Group::Host, "whether the address of the API is free, or who has it"),
];
