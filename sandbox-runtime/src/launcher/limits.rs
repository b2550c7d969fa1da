//! The limits of a sandbox: which are possible, and what is said of one that was reached.

use std::fmt;

use ostler_wire::launcher::Limits;
use ostler_wire::{Failure, FailureKind};

use crate::step::failure;

/// The least with which PID 1 starts at all.
pub(super) const LEAST: Limits =
    Limits { memory: 16 << 20, pids: 4, cpu_millis: 10, cpu_weight: 1, io_weight: 1, disk: 1 << 20, files: 100 };

/// Larger numbers are mistakes.
pub(super) const MOST: Limits = Limits {
    memory: 1 << 46,
    pids: 4 << 20,
    cpu_millis: 1_024_000,
    cpu_weight: 1000,
    io_weight: 1000,
    disk: 1 << 50,
    files: 1 << 32,
};

/// Whether the numbers make sense, and are none beyond what the operator allowed when this launcher started.
pub(super) fn check(limits: Limits, allowed: Limits) -> Result<(), Failure> {
    let refuse = |words: String| Err(failure(FailureKind::Invalid, "check limits", words));
    let rows = rows(limits).into_iter().zip(rows(LEAST)).zip(rows(MOST)).zip(rows(allowed));
    for ((((name, value), (_, least)), (_, most)), (_, allowed)) in rows {
        if !(least..=most).contains(&value) {
            return refuse(format!("{name} is {value}; {least} to {most} are possible"));
        }
        if value > allowed {
            let words = "was the most that the configuration allowed when this launcher started; one that was changed since \
                         holds after a clean stop of the host";
            return refuse(format!("{name} is {value}; {allowed} {words}"));
        }
    }
    Ok(())
}

fn rows(limits: Limits) -> [(&'static str, u64); 7] {
    let Limits { memory, pids, cpu_millis, cpu_weight, io_weight, disk, files } = limits;
    [
        ("memory", memory),
        ("pids", pids.into()),
        ("cpu_millis", cpu_millis.into()),
        ("cpu_weight", cpu_weight.into()),
        ("io_weight", io_weight.into()),
        ("disk", disk),
        ("files", files),
    ]
}

/// A limit that ended a sandbox, with what was used and what was allowed. [`fmt::Display`] gives the words that people read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    Memory { used: u64, limit: u64 },
    Machine,
    Disk { used: u64, limit: u64 },
    Files { used: u64, limit: u64 },
    Depth { limit: u64 },
    Descriptors { limit: u64 },
    Mappings { limit: u64 },
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Memory { used, limit } => write!(f, "out of memory: used {} of {}", Size(used), Size(limit)),
            Self::Machine => write!(f, "the machine was out of memory, not this sandbox"),
            Self::Disk { used, limit } => write!(f, "disk: used {} of {}", Size(used), Size(limit)),
            Self::Files { used, limit } => write!(f, "files: {used} of {limit}"),
            Self::Depth { limit } => write!(f, "files: folders in each other, more than {limit} deep"),
            Self::Descriptors { limit } => write!(f, "open files: more than {limit} in all processes together"),
            Self::Mappings { limit } => write!(f, "mapped memory: more than {limit} regions in all processes together"),
        }
    }
}

/// Bytes for people.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB")] {
            if self.0 >= unit {
                return write!(f, "{:.1} {name}", self.0 as f64 / unit as f64);
            }
        }
        write!(f, "{:.1} KiB", self.0 as f64 / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_out_of_range_is_named_with_what_would_be_right() {
        assert_eq!(check(LEAST, MOST), Ok(()));
        assert_eq!(check(MOST, MOST), Ok(()));
        for (wrong, words) in [
            (Limits { pids: 0, ..LEAST }, "pids is 0; 4 to 4194304 are possible"),
            (Limits { cpu_weight: 1001, ..LEAST }, "cpu_weight is 1001; 1 to 1000 are possible"),
            (Limits { io_weight: 0, ..LEAST }, "io_weight is 0; 1 to 1000 are possible"),
            (Limits { disk: 1, ..LEAST }, "disk is 1; 1048576 to 1125899906842624 are possible"),
            (Limits { files: 99, ..LEAST }, "files is 99; 100 to 4294967296 are possible"),
        ] {
            assert_eq!(check(wrong, MOST).unwrap_err().detail, words);
        }
    }

    #[test]
    fn no_limit_is_beyond_what_the_operator_allowed() {
        let allowed = Limits {
            memory: 32 << 20,
            pids: 40,
            cpu_millis: 1000,
            cpu_weight: 100,
            io_weight: 100,
            disk: 2 << 20,
            files: 1000,
        };
        assert_eq!(check(allowed, allowed), Ok(()));
        for (name, beyond) in [
            ("memory", Limits { memory: allowed.memory + 1, ..allowed }),
            ("pids", Limits { pids: 41, ..allowed }),
            ("cpu_millis", Limits { cpu_millis: 1001, ..allowed }),
            ("cpu_weight", Limits { cpu_weight: 101, ..allowed }),
            ("io_weight", Limits { io_weight: 101, ..allowed }),
            ("disk", Limits { disk: allowed.disk + 1, ..allowed }),
            ("files", Limits { files: 1001, ..allowed }),
        ] {
            let refused = check(beyond, allowed).unwrap_err();
            assert!(refused.detail.starts_with(name) && refused.detail.contains("the most that"), "{name}: {refused}");
        }
    }

    #[test]
    fn what_was_reached_is_said_with_what_was_used() {
        let words = |reached: Reached| reached.to_string();
        assert_eq!(words(Reached::Memory { used: 2 << 30, limit: 2 << 30 }), "out of memory: used 2.0 GiB of 2.0 GiB");
        assert_eq!(words(Reached::Disk { used: 21 << 30, limit: 20 << 30 }), "disk: used 21.0 GiB of 20.0 GiB");
        assert_eq!(words(Reached::Files { used: 12, limit: 10 }), "files: 12 of 10");
        assert_eq!(Size(1536 << 20).to_string(), "1.5 GiB");
        assert_eq!((Size(5 << 20).to_string(), Size(512).to_string()), ("5.0 MiB".into(), "0.5 KiB".into()));
    }
}
