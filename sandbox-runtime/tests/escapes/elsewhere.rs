//! Escapes of the public lists that are no rows: kept by tests of other parts, or of parts that Ostler has not.

/// Kept by tests of another kind, for which no defence can be left out.
pub struct Elsewhere {
    pub after: &'static str,
    pub tries: &'static str,
    /// Why it cannot happen.
    pub because: &'static str,
    /// Names of tests.
    pub kept_by: &'static [&'static str],
}

pub const ELSEWHERE: &[Elsewhere] = &[
    Elsewhere {
        after: "CVE-2018-15664, CVE-2019-14271, GHSA-vp62-88p7-qqf5",
        tries: "swap a directory for a link while a file is read or written from outside",
        because: "the guest resolves paths, in the sandbox and beneath the workspace; what comes out is an open file",
        kept_by: &["directories_swapped_during_a_transfer", "only_regular_files_of_known_file_systems_are_read"],
    },
    Elsewhere {
        after: "CVE-2021-30465, CVE-2024-45310, CVE-2025-52565, CVE-2025-52881, CVE-2025-62596",
        tries: "change files while another sandbox with the same ones is being made",
        because: "no two living sandboxes have files in common, and nothing lives in a tree while it is being mounted",
        kept_by: &["two_sandboxes_never_have_the_same_files"],
    },
    Elsewhere {
        after: "libcontainer 0.7.0 (tenants), runc before 2015",
        tries: "a process that is started into a sandbox from outside, without its filter",
        because: "there is no such way: the guest starts everything",
        kept_by: &[
            "every_process_in_a_sandbox_is_confined",
            "what_outlives_its_command_is_confined_like_it",
            "a_restored_sandbox_and_one_that_was_handed_over_are_confined_like_a_new_one",
        ],
    },
    Elsewhere {
        after: "CVE-2022-0811",
        tries: "smuggle a kernel parameter into a specification",
        because: "a request has no such part, and a specification no kernel parameters",
        kept_by: &["a_specification_takes_nothing_from_a_request"],
    },
    Elsewhere {
        after: "CVE-2021-41190, CVE-2026-53492",
        tries: "deceive by what an archive or a record says of itself",
        because: "names, paths and uids of records are checked against ours, and an archive gives nothing but files",
        kept_by: &[
            "an_entry_that_could_escape_or_deceive_is_refused_by_name",
            "a_damaged_record_neither_gives_foreign_uids_nor_loses_the_files",
        ],
    },
    Elsewhere {
        after: "CVE-2025-59532",
        tries: "choose a directory that becomes the root of what may be written",
        because: "the workspace is a constant",
        kept_by: &["paths_that_lead_outside_are_refused_for_every_request"],
    },
    Elsewhere {
        after: "CVE-2025-66479",
        tries: "have an empty list of allowed hosts mean all of them",
        because: "there is no route at all, whatever a list says",
        kept_by: &["everything_else_fails_at_once"],
    },
    Elsewhere {
        after: "CVE-2026-25725, CVE-2026-42074",
        tries: "switch protection off from inside, by a file or a parameter of a tool",
        because: "the launcher reads nothing of a sandbox, and one that is installed knows no such switch",
        kept_by: &["a_launcher_that_is_installed_refuses_to_be_weakened"],
    },
    Elsewhere {
        after: "an x32 or i386 call (moby/profiles, pull request 22)",
        tries: "reach a refused call by the number of another architecture",
        because: "the thread ends",
        kept_by: &["refused_calls_give_the_errno_that_was_chosen"],
    },
];

/// Of parts that Ostler has not, or of the kernel alone: what, and why there is no test.
pub const NOT_HERE: &[(&str, &str)] = &[
    ("CVE-2024-0132, CVE-2025-23266 (NVIDIA's hooks)", "no hook runs, and no GPU is handed in"),
    ("CVE-2024-23651, CVE-2024-23652, CVE-2024-23653 (BuildKit)", "Ostler builds no images and has no cache mounts"),
    ("CVE-2026-53489 (checkpoints of processes)", "memory is never restored; a restored tree is files only"),
    ("CVE-2025-52565 (/dev/console)", "no console is bound: a specification never asks for a terminal"),
    (
        "CVE-2022-0847, CVE-2026-31431 (the kernel's own part)",
        "needs a kernel with the hole; on one that is patched the attempt proves nothing. What leads there is a row above, and `ostler doctor` warns of a kernel that is older than the later fix",
    ),
];
