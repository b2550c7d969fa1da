//! Can sandboxes be limited?

use ostler_sandbox::probe::{self, Attempt, Gap, Kind, Summary};
use ostler_sandbox::standing::Standing;

use super::context::{Attempts, Looker, Tried};
use super::finding::{Check, Finding};

pub(super) fn examine(attempts: &Attempts, looker: Looker) -> Vec<Check> {
    let standing = looker.standing();
    let (controllers, gaps) = match probe::control_groups(standing) {
        Ok(summary) if standing == Standing::Namespace => (delegated(&summary), gaps(&summary.gaps)),
        Ok(summary) => (controllers(&summary), gaps(&summary.gaps)),
        Err(error) => {
            let unknown = || Finding::skipped(format!("the list of mounts cannot be read: {error}"));
            (unknown(), unknown())
        }
    };
    let limits = match standing {
        Standing::Namespace => {
            Finding::skipped("a host of this user's tries it when it starts, and says what it lacks")
        }
        Standing::Machine => limits(&attempts.of(Attempt::Limits)),
    };
    vec![
        controllers.of("control_groups.controllers"),
        gaps.of("control_groups.gaps"),
        limits.of("control_groups.limits"),
    ]
}

fn controllers(summary: &Summary) -> Finding {
    let Summary { kind, missing, .. } = summary;
    if !missing.is_empty() && *kind != Kind::None {
        let lost: Vec<&str> = missing
            .iter()
            .map(|controller| match *controller {
                "memory" => "`memory`: one sandbox could take all of it",
                "pids" => "`pids`: one sandbox could start processes until nothing starts any more",
                _ => "`cpu`: one sandbox could take all processor time",
            })
            .collect();
        return Finding::failed(
            format!("no hierarchy has {}", lost.join("; nor ")),
            "boot without `cgroup_disable=`, with `cgroup_enable=memory` where the kernel wants it; inside a container, \
             give it all controllers",
        );
    }
    match kind {
        Kind::None => Finding::failed("none are mounted", "mount -t cgroup2 none /sys/fs/cgroup"),
        Kind::Unified => Finding::ok("version 2; memory, pids, cpu"),
        Kind::Hybrid => Finding::ok("versions 1 and 2; memory, pids, cpu"),
        Kind::Legacy => Finding::warning(
            "version 1 only; memory, pids, cpu. A sandbox cannot be ended at one stroke, only process by process",
            "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with \
             `systemd.unified_cgroup_hierarchy=1`",
        ),
    }
}

/// Without root only the groups count that were given to the user.
fn delegated(summary: &Summary) -> Finding {
    if summary.missing.is_empty() {
        return Finding::ok("this user has groups of its own; memory, pids, cpu");
    }
    Finding::warning(
        format!(
            "this user has no group of its own with {}: sandboxes of a host that is started without root are not limited by it",
            summary.missing.join(", ")
        ),
        "start it in one: systemd-run --user --scope -p Delegate=yes ostler up",
    )
}

fn gaps(gaps: &[Gap]) -> Finding {
    // What lacks a controller is told with the controllers.
    let is_told = |gap: &&Gap| !matches!(gap, Gap::Memory | Gap::Processes | Gap::Processor);
    let gaps: Vec<&Gap> = gaps.iter().filter(is_told).collect();
    if gaps.is_empty() {
        return Finding::ok("swap is counted, lack of memory is heard of, disks are shared out by weight");
    }
    let join = |part: fn(Gap) -> &'static str| gaps.iter().map(|gap| part(**gap)).collect::<Vec<_>>().join("; ");
    Finding::warning(join(Gap::words), join(Gap::fix))
}

fn limits(tried: &Tried) -> Finding {
    match tried {
        Tried::Works => Finding::ok("a process was started in a group of its own and limited"),
        Tried::Not(why) => Finding::skipped(why),
        Tried::Refused(failure) => Finding::failed(
            failure.to_string(),
            "run the host outside of a container, or give it a writable tree of control groups with memory, pids and cpu",
        ),
    }
}

#[cfg(test)]
pub(super) fn examples() -> Vec<Check> {
    use super::tests::{not_root, refused};
    let summary = |kind, missing: &[&'static str]| Summary { kind, missing: missing.to_vec(), gaps: Vec::new() };
    let summaries = [
        summary(Kind::Unified, &[]),
        summary(Kind::Hybrid, &[]),
        summary(Kind::Legacy, &[]),
        summary(Kind::None, &["memory", "pids", "cpu"]),
        summary(Kind::Unified, &["memory", "pids", "cpu"]),
    ];
    let controllers = summaries.iter().map(|summary| controllers(summary).of("control_groups.controllers"));
    let tried = [Tried::Works, not_root(), refused("set limit", 30)];
    let all = [Gap::Swap, Gap::OutOfMemory, Gap::IoWeight];
    let gaps = [&all[..0], &all[2..], &all[..]].map(|found| gaps(found).of("control_groups.gaps"));
    let own = [summary(Kind::Unified, &[]), summary(Kind::None, &["memory", "pids", "cpu"])];
    let controllers = controllers.chain(own.iter().map(|summary| delegated(summary).of("control_groups.controllers")));
    controllers.chain(gaps).chain(tried.iter().map(|tried| limits(tried).of("control_groups.limits"))).collect()
}
