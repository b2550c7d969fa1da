//! Can the kernel do what a sandbox needs, and does this machine allow it?

use ostler_sandbox::probe::{self, Attempt};
use ostler_sandbox::standing::Standing;

use super::context::{Attempts, Looker, Tried};
use super::finding::{Check, Finding};
use super::holes;

/// Oldest kernel that is supported: `docs/src/systems.md`.
const OLDEST: (u32, u32) = (6, 1);

/// User namespaces that a machine should allow: one for each sandbox that a launcher keeps.
const FEW_NAMESPACES: u64 = 1024;

/// What the kernel and its settings say.
struct Facts {
    release: String,
    /// What it says of itself in full.
    words: String,
    /// `user.max_user_namespaces`.
    namespaces: Option<u64>,
    /// `vm.memfd_noexec`.
    memory_files: Option<u64>,
    /// Whether sockets can refuse descriptors.
    refuses_descriptors: bool,
}

fn gather() -> Facts {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let number = |path: &str| read(path).and_then(|text| text.parse().ok());
    Facts {
        release: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
        words: read("/proc/version").unwrap_or_default(),
        namespaces: number("/proc/sys/user/max_user_namespaces"),
        memory_files: number("/proc/sys/vm/memfd_noexec"),
        refuses_descriptors: probe::can_refuse_descriptors(),
    }
}

pub(super) fn examine(attempts: &Attempts, looker: Looker) -> Vec<Check> {
    judge(&gather(), attempts, looker.standing())
}

fn judge(facts: &Facts, attempts: &Attempts, standing: Standing) -> Vec<Check> {
    let root = attempts.of(Attempt::Overlay);
    vec![
        version(&facts.release).of("kernel.version"),
        holes::judge(&facts.release, &facts.words).of("kernel.holes"),
        namespaces(&attempts.of(Attempt::Namespaces), facts.namespaces).of("kernel.namespaces"),
        overlay(&root).of("kernel.overlay"),
        idmapped(&root, standing).of("kernel.idmapped_mounts"),
        nftables(&attempts.of(Attempt::Door)).of("kernel.nftables"),
        seccomp(&attempts.of(Attempt::Seccomp)).of("kernel.seccomp"),
        memory_files(&attempts.of(Attempt::Guest), facts.memory_files).of("kernel.memory_files"),
        descriptors(facts.refuses_descriptors).of("kernel.descriptors"),
    ]
}

fn version(release: &str) -> Finding {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse::<u32>);
    let (major, minor) = OLDEST;
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(second))) if (first, second) >= OLDEST => Finding::ok(format!("Linux {release}")),
        (Some(Ok(_)), Some(Ok(_))) => Finding::failed(
            format!("Linux {release}; {major}.{minor} is the oldest that is supported"),
            "install a newer kernel, such as that of Debian 12 or later",
        ),
        _ => Finding::skipped(format!("the kernel's version is unreadable: `{release}`")),
    }
}

fn namespaces(tried: &Tried, most: Option<u64>) -> Finding {
    let allow = "sysctl -w user.max_user_namespaces=15000, and keep it in /etc/sysctl.d/ostler.conf";
    match (tried, most) {
        (_, Some(0)) => Finding::failed("user.max_user_namespaces is 0: no sandbox can be made", allow),
        (Tried::Works, Some(most)) if most < FEW_NAMESPACES => {
            Finding::warning(format!("user.max_user_namespaces allows {most} sandboxes at one time"), allow)
        }
        (Tried::Works, _) => Finding::ok("mount, process, IPC, host name, control group, network, user"),
        (Tried::Refused(failure), _) => Finding::failed(
            failure.to_string(),
            "use a kernel with CONFIG_NAMESPACES and CONFIG_USER_NS; inside a container or a service with \
             RestrictNamespaces, allow it to make namespaces",
        ),
        (Tried::Not(why), _) => Finding::skipped(why),
    }
}

/// Where the steps of one attempt belong: which were not reached, which was refused, which worked.
#[derive(PartialEq, Eq)]
enum Step {
    Before,
    IdMap,
    Overlay,
}

fn step(operation: &str) -> Step {
    match operation {
        "clone layer" | "map ids of layer" | "attach layer" => Step::IdMap,
        "mount overlay" | "detach layer" | "inspect overlay" | "check tree" | "open" => Step::Overlay,
        _ => Step::Before,
    }
}

/// Steps that more than one attempt begins with, as the launcher names them.
const UNSHARE: &str = "unshare";
const MAP_IDS: &str = "write id map";

const ALLOW_IDS: &str = "run the host where root may use all uids: on the machine itself or in a virtual machine, not in a user \
                         namespace such as that of a rootless container";

const OTHER_DISK: &str = "put the data folder on ext4, xfs or btrfs (`--data`, or `data` in the section [host])";

fn overlay(tried: &Tried) -> Finding {
    match tried {
        Tried::Works => Finding::ok("mounted in a namespace of its own, and written to"),
        Tried::Not(why) => Finding::skipped(why),
        Tried::Refused(failure) if failure.errno == NODEV => {
            Finding::failed(failure.to_string(), "modprobe overlay, or use a kernel with CONFIG_OVERLAY_FS")
        }
        Tried::Refused(failure) => match step(&failure.op) {
            Step::Overlay => Finding::failed(failure.to_string(), OTHER_DISK),
            Step::IdMap => Finding::skipped(format!("not reached: {failure}")),
            // The check of namespaces tells it.
            Step::Before if failure.op == UNSHARE => Finding::skipped(format!("not reached: {failure}")),
            Step::Before if failure.op == MAP_IDS => Finding::failed(failure.to_string(), ALLOW_IDS),
            Step::Before => Finding::failed(
                failure.to_string(),
                "make the data folder's disk writable for root, or choose another (`--data`)",
            ),
        },
    }
}

/// `ENODEV`: the kernel does not know the file system.
const NODEV: i32 = 19;

fn idmapped(tried: &Tried, standing: Standing) -> Finding {
    match tried {
        _ if standing == Standing::Namespace => Finding::warning(
            "not without root of the machine: each sandbox has a copy of its image's files on the disk",
            "start the host as root; btrfs and XFS share the blocks of copies",
        ),
        Tried::Works => Finding::ok("the file system of the data folder can map ids"),
        Tried::Not(why) => Finding::skipped(why),
        Tried::Refused(failure) => match step(&failure.op) {
            Step::Overlay => Finding::ok("the file system of the data folder can map ids"),
            Step::IdMap => Finding::failed(failure.to_string(), OTHER_DISK),
            Step::Before => Finding::skipped(format!("not reached: {failure}")),
        },
    }
}

fn nftables(tried: &Tried) -> Finding {
    match tried {
        Tried::Works => Finding::ok("the rules of a sandbox's door are accepted"),
        Tried::Not(why) => Finding::skipped(why),
        Tried::Refused(failure) if failure.op == UNSHARE => Finding::skipped(format!("not reached: {failure}")),
        Tried::Refused(failure) if failure.op == MAP_IDS => Finding::failed(failure.to_string(), ALLOW_IDS),
        Tried::Refused(failure) => Finding::failed(
            failure.to_string(),
            "modprobe -a nf_tables nft_chain_nat nft_redir nft_reject_inet nft_ct, or use a kernel with \
             CONFIG_NF_TABLES_INET, NFT_NAT, NFT_REDIR, NFT_REJECT and NFT_CT",
        ),
    }
}

fn seccomp(tried: &Tried) -> Finding {
    match tried {
        Tried::Works => Finding::ok("a filter was loaded"),
        Tried::Not(why) => Finding::skipped(why),
        Tried::Refused(failure) => Finding::failed(
            failure.to_string(),
            "use a kernel with CONFIG_SECCOMP_FILTER; inside a container, allow the system call seccomp",
        ),
    }
}

fn memory_files(tried: &Tried, setting: Option<u64>) -> Finding {
    match (tried, setting) {
        (Tried::Works, _) => Finding::ok("the guest runs from memory"),
        (Tried::Not(why), _) => Finding::skipped(why),
        (Tried::Refused(failure), Some(2)) => Finding::failed(
            format!("{failure}; vm.memfd_noexec is 2"),
            "sysctl -w vm.memfd_noexec=1, and keep it in /etc/sysctl.d/ostler.conf",
        ),
        (Tried::Refused(failure), _) => Finding::failed(
            failure.to_string(),
            "let programs be executed from memory files: look for a security module that refuses it in the kernel's log",
        ),
    }
}

fn descriptors(refused: bool) -> Finding {
    Finding::ok(match refused {
        true => "the launcher's sockets refuse them",
        false => "not there (since Linux 6.16): a host that was taken over could delay its launcher",
    })
}

#[cfg(test)]
pub(super) fn examples() -> Vec<Check> {
    use super::tests::{not_root, refused};
    let errors = [UNSHARE, MAP_IDS, "make directory", "map ids of layer", "mount overlay"].map(|op| refused(op, 22));
    let mut all: Vec<Check> =
        ["6.18.44", "6.0.3", "unknown"].map(|release| version(release).of("kernel.version")).into();
    for (tried, most) in [
        (Tried::Works, Some(15_000)),
        (Tried::Works, Some(100)),
        (Tried::Works, Some(0)),
        (refused("unshare", 1), None),
        (not_root(), None),
    ] {
        all.push(namespaces(&tried, most).of("kernel.namespaces"));
    }
    for tried in [Tried::Works, not_root(), refused("mount overlay", NODEV)].iter().chain(&errors) {
        all.push(overlay(tried).of("kernel.overlay"));
        all.push(idmapped(tried, Standing::Machine).of("kernel.idmapped_mounts"));
    }
    all.push(idmapped(&Tried::Works, Standing::Namespace).of("kernel.idmapped_mounts"));
    for tried in [Tried::Works, not_root(), refused(UNSHARE, 1), refused(MAP_IDS, 1), refused("install door rules", 2)]
    {
        all.push(nftables(&tried).of("kernel.nftables"));
    }
    let silent = || Tried::Not("the probe did not say".into());
    for tried in [Tried::Works, refused("load a filter", 22), silent()] {
        all.push(seccomp(&tried).of("kernel.seccomp"));
    }
    for tried in [Tried::Works, refused("execute the guest from memory", 13), silent()] {
        all.push(memory_files(&tried, Some(0)).of("kernel.memory_files"));
    }
    all.push(memory_files(&refused("make memory file", 13), Some(2)).of("kernel.memory_files"));
    all.extend(holes::examples());
    all.extend([true, false].map(|can| descriptors(can).of("kernel.descriptors")));
    all
}
