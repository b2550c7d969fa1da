//! Can sandboxes be limited?

use ostler_sandbox::probe::{self, Attempt, Gap, Kind, Summary};

use super::context::{Attempts, Tried};
use super::finding::{Check, Finding};

pub(super) fn examine(attempts: &Attempts) -> Vec<Check> {
    let (controllers, gaps) = match probe::control_groups() {
        Ok(summary) => (controllers(&summary), gaps(&summary.gaps)),
        Err(error) => {
            let unknown = || Finding::skipped(format!("the list of mounts cannot be read: {error}"));
            (unknown(), unknown())
        }
    };
    vec![
        controllers.of("control_groups.controllers"),
        gaps.of("control_groups.gaps"),
        limits(&attempts.of(Attempt::Limits)).of("control_groups.limits"),
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

fn gaps(gaps: &[Gap]) -> Finding {
    if gaps.is_empty() {
        return Finding::ok("swap is counted, lack of memory is heard of, disks are shared out by weight");
    }
    let join = |part: fn(&Gap) -> &'static str| gaps.iter().map(part).collect::<Vec<_>>().join("; ");
    Finding::warning(join(|gap| gap.words()), join(|gap| gap.fix()))
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
    controllers.chain(gaps).chain(tried.iter().map(|tried| limits(tried).of("control_groups.limits"))).collect()
}
