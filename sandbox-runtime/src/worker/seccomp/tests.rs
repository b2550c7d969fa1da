//! What can be known of the profile without a sandbox: every name, no contradiction, nothing forgotten.

use std::collections::{BTreeMap, BTreeSet};

use libseccomp::{ScmpArch, ScmpSyscall};
use serde_json::Value;

use super::calls::{ABSENT, ALLOWED, Group, NEWER, REFUSED, UNPACKING};
use super::{Calls, none_of, profile, split};

fn names(groups: &'static [Group]) -> Vec<&'static str> {
    groups.iter().flat_map(|(_, names)| split(names)).collect()
}

/// One comparison of a rule.
#[derive(Clone, Debug, PartialEq)]
struct Comparison {
    argument: u64,
    /// With a mask of all ones it is an equality.
    mask: u64,
    value: u64,
    at_least: bool,
}

impl Comparison {
    fn read(value: &Value) -> Self {
        let number = |name: &str| value[name].as_u64();
        let (mask, at_least) = match value["op"].as_str().unwrap() {
            "SCMP_CMP_MASKED_EQ" => (number("valueTwo").unwrap(), false),
            "SCMP_CMP_EQ" => (u64::MAX, false),
            "SCMP_CMP_GE" => (0, true),
            other => panic!("{other}"),
        };
        Self { argument: number("index").unwrap(), mask, value: number("value").unwrap(), at_least }
    }

    /// Whether no value fits both.
    fn excludes(&self, other: &Self) -> bool {
        match (self.at_least, other.at_least) {
            (false, false) => (self.value ^ other.value) & self.mask & other.mask != 0,
            (true, false) => other.mask == u64::MAX && other.value < self.value,
            (false, true) => other.excludes(self),
            (true, true) => false,
        }
    }
}

/// The rules with their names, action and comparisons.
fn rules(calls: Calls) -> Vec<(Vec<String>, String, Vec<Comparison>)> {
    let profile = profile(calls);
    let rule = |rule: &Value| {
        let names = rule["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        let comparisons = rule["args"].as_array().unwrap().iter().map(Comparison::read).collect();
        (names, format!("{} {}", rule["action"], rule["errnoRet"]), comparisons)
    };
    profile["syscalls"].as_array().unwrap().iter().map(rule).collect()
}

#[test]
fn the_profile_is_one_that_the_runtime_reads() {
    let parsed: oci_spec::runtime::LinuxSeccomp = serde_json::from_value(profile(Calls::All)).unwrap();
    assert!(parsed.syscalls().as_ref().is_some_and(|rules| rules.len() > 100));
    assert_eq!(parsed.default_errno_ret(), Some(libc::ENOSYS as u32));
}

#[test]
fn no_rule_compares_one_argument_twice() {
    for (names, _, comparisons) in [rules(Calls::All), rules(Calls::Files)].concat() {
        let arguments: BTreeSet<u64> = comparisons.iter().map(|comparison| comparison.argument).collect();
        assert_eq!(arguments.len(), comparisons.len(), "{names:?} {comparisons:?}");
    }
}

/// Two rules with different answers may never fit the same call, since nobody says which of them wins.
#[test]
fn no_two_rules_contradict_each_other() {
    assert_no_contradiction(Calls::All);
    assert_no_contradiction(Calls::Files);
}

fn assert_no_contradiction(calls: Calls) {
    type Rule = (String, Vec<Comparison>);
    let mut by_name: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
    for (names, action, comparisons) in rules(calls) {
        for name in names {
            by_name.entry(name).or_default().push((action.clone(), comparisons.clone()));
        }
    }
    let apart = |one: &Rule, other: &Rule| {
        one.1.iter().any(|mine| other.1.iter().any(|theirs| mine.argument == theirs.argument && mine.excludes(theirs)))
    };
    for (name, rules) in &by_name {
        for (number, one) in rules.iter().enumerate() {
            for other in &rules[number + 1..] {
                assert!(one.0 == other.0 || apart(one, other), "{name}: {one:?} and {other:?}");
            }
        }
    }
}

#[test]
fn none_of_fits_everything_else_once() {
    for values in [vec![0], vec![1, 2, 10, 16], vec![u32::MAX], vec![0x5412, 0x541c]] {
        let branches: Vec<Comparison> = none_of(0, &values).iter().map(Comparison::read).collect();
        let fitting =
            |number: u32| branches.iter().filter(|branch| u64::from(number) & branch.mask == branch.value).count();
        for number in (0..70).chain(0x5400..0x5430).chain([u32::MAX, 1 << 31, 1 << 20]) {
            assert_eq!(fitting(number), usize::from(!values.contains(&number)), "{number} of {values:?}");
        }
    }
}

#[test]
fn every_name_is_in_one_table_only() {
    let all: Vec<&str> = [names(ALLOWED), names(REFUSED), names(ABSENT)].concat();
    let mut seen = BTreeSet::new();
    let twice: Vec<&str> = all.into_iter().filter(|name| !seen.insert(*name)).collect();
    assert_eq!(twice, Vec::<&str>::new());
    let conditional = ["clone", "prlimit64", "personality", "socket", "socketpair", "ioctl"];
    for name in conditional {
        assert!(!seen.contains(name), "{name} has rules of its own");
    }
    let granted: BTreeSet<String> = rules(Calls::All).into_iter().flat_map(|(names, ..)| names).collect();
    let forgotten: Vec<&str> = names(ABSENT).into_iter().filter(|name| granted.contains(*name)).collect();
    assert_eq!(forgotten, Vec::<&str>::new());
}

#[test]
fn what_only_works_on_files_has_neither_network_nor_tracing_nor_shared_memory() {
    let granted = |calls| {
        let allowed = |action: &str| action.starts_with("\"SCMP_ACT_ALLOW");
        let names = rules(calls).into_iter().filter(|(_, action, _)| allowed(action)).flat_map(|(names, ..)| names);
        names.collect::<BTreeSet<String>>()
    };
    let (all, files) = (granted(Calls::All), granted(Calls::Files));
    assert!(files.is_subset(&all));
    for absent in ["ptrace", "process_vm_readv", "mknod", "shmget", "mq_open", "io_submit"] {
        assert!(all.contains(absent) && !files.contains(absent), "{absent}");
    }
    let families = rules(Calls::Files).into_iter().filter(|(names, ..)| names.iter().any(|name| name == "socket"));
    let allowed: Vec<_> = families.filter(|(_, action, _)| action.starts_with("\"SCMP_ACT_ALLOW")).collect();
    assert_eq!(allowed.len(), 1, "{allowed:?}");
}

#[test]
fn what_unpacks_an_archive_makes_no_process_and_no_socket() {
    let everywhere: BTreeSet<&str> = names(ALLOWED).into_iter().collect();
    let unknown: Vec<&str> = names(UNPACKING).into_iter().filter(|name| !everywhere.contains(name)).collect();
    assert_eq!(unknown, Vec::<&str>::new());
    for (names, action, _) in rules(Calls::Unpacking) {
        for call in ["clone", "execve", "socket", "connect", "recvmsg", "ioctl", "prctl", "kill", "rename", "chdir"] {
            let allows = action.starts_with("\"SCMP_ACT_ALLOW") && names.iter().any(|name| name == call);
            assert!(!allows, "{call}");
        }
    }
}

/// A misspelt name would be left out in silence, which for a call to be refused is no harm and for an allowed one a riddle.
#[test]
fn every_name_is_known_for_an_architecture_of_ours_or_listed_as_newer() {
    let newer: BTreeMap<&str, u32> = NEWER.iter().copied().collect();
    let mut unknown: Vec<&str> = Vec::new();
    for name in [names(ALLOWED), names(REFUSED)].concat() {
        // Where a call does not exist on an architecture, libseccomp gives it a negative number.
        let numbers = [ScmpArch::X8664, ScmpArch::Aarch64]
            .map(|arch| ScmpSyscall::from_name_by_arch(name, arch).ok().map(i32::from).filter(|number| *number >= 0));
        match (numbers, newer.get(name)) {
            ([None, None], None) => unknown.push(name),
            ([None, None], Some(_)) => {}
            (known, Some(number)) => assert_eq!(known, [Some(*number as i32); 2], "{name}"),
            _ => {}
        }
    }
    assert_eq!(unknown, Vec::<&str>::new());
    let all: BTreeSet<&str> = [names(ALLOWED), names(REFUSED)].concat().into_iter().collect();
    assert!(newer.keys().all(|name| all.contains(name)), "a newer name is in no table");
}

/// arm64 has no other spelling for what programs cannot do without.
#[test]
fn what_a_program_needs_to_live_is_there_on_both_architectures() {
    let granted: BTreeSet<String> = rules(Calls::All)
        .into_iter()
        .filter(|(_, action, _)| action.starts_with("\"SCMP_ACT_ALLOW"))
        .flat_map(|(names, ..)| names)
        .collect();
    for arch in [ScmpArch::X8664, ScmpArch::Aarch64] {
        let there: BTreeSet<i32> = granted
            .iter()
            .filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok().map(i32::from))
            .filter(|number| *number >= 0)
            .collect();
        assert!(there.len() > 240, "{arch:?}: {}", there.len());
        for needed in [
            "openat",
            "mmap",
            "clone",
            "execve",
            "futex",
            "ppoll",
            "socket",
            "ioctl",
            "exit_group",
            "wait4",
            "setsockopt",
        ] {
            let number = i32::from(ScmpSyscall::from_name_by_arch(needed, arch).unwrap());
            assert!(there.contains(&number), "{needed} on {arch:?}");
        }
    }
}
