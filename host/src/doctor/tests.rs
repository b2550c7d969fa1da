//! Every state of every check, on made-up facts. The generated page shows all of them: it is what people read, and what
//! a change of a judgement changes.

use std::collections::BTreeSet;
use std::fmt::Write;

use ostler_sandbox::wire::{Failure, FailureKind};

use super::context::Tried;
use super::{Check, ENTRIES, Entry, Group, PATIENCE, State, too_long};

/// An attempt of which a step was refused.
pub(super) fn refused(operation: &str, errno: i32) -> Tried {
    let (op, detail) = (operation.to_owned(), "what was being done to what".to_owned());
    Tried::Refused(Failure { kind: FailureKind::System, op, errno, detail })
}

/// An attempt that was not made.
pub(super) fn not_root() -> Tried {
    Tried::Not("only root can try it".to_owned())
}

fn examples() -> Vec<Check> {
    [
        super::configuration::examples(),
        super::kernel::examples(),
        super::cgroups::examples(),
        super::rights::examples(),
        super::disk::examples(),
        super::data::examples(),
        super::programs::examples(),
        super::images::examples(),
        super::plugins::examples(),
        super::models::examples(),
        super::clock::examples(),
        super::host::examples(),
    ]
    .concat()
}

#[test]
fn every_check_has_examples_and_every_example_a_check() {
    let known: BTreeSet<&str> = ENTRIES.iter().map(|entry| entry.id).collect();
    let shown: BTreeSet<&str> = examples().iter().map(|check| check.id).collect();
    assert_eq!(known, shown);
    assert_eq!(known.len(), ENTRIES.len(), "an id is there twice");
    for Entry { id, group, .. } in ENTRIES {
        assert!(id.starts_with(&format!("{}.", group.name())), "{id}");
    }
    let order: Vec<&str> = ENTRIES.iter().map(|entry| entry.group.name()).collect();
    let groups: Vec<&str> = Group::ALL.iter().map(|group| group.name()).collect();
    assert!(order.is_sorted_by_key(|name| groups.iter().position(|group| group == name)));
}

#[test]
fn whoever_is_warned_is_told_what_to_do_and_in_one_line() {
    for check in examples() {
        let must_have_fix = matches!(check.state, State::Warning | State::Failed);
        assert_eq!(check.fix.is_some(), must_have_fix, "{check:?}");
        for text in [Some(&check.found), check.fix.as_ref()].into_iter().flatten() {
            assert!(!text.is_empty() && !text.ends_with('.') && !text.contains('\n'), "{check:?}");
        }
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

fn page() -> String {
    let mut text = format!(
        "# What `ostler doctor` checks\n\n\
         `ostler doctor` looks at this machine and at the host that runs on it. It needs neither root nor a host, asks nothing \
         at the terminal, and leaves nothing behind. Everything is looked at at the same time, at most about {} s; what takes \
         longer is `{}` with the words \"{}\".\n\n\
         ```sh\n\
         ostler doctor                    # this machine with /etc/ostler/config.toml\n\
         ostler doctor --offline          # without asking providers of models\n\
         ostler doctor --data /srv/ostler # as `ostler up` would start with these flags\n\
         ostler doctor --json             # for programs\n\
         ```\n\n\
         Each check is `OK`, `Warning` (it works, and somebody should know), `Failed` (a host cannot run well like this) or \
         `Skipped` (it could not be looked at; what was found says why). The exit code is 8 when something failed, else 0. \
         With `--json` stdout holds one document:\n\n\
         ```json\n\
         {{\"version\": 1,\n \"checks\": [{{\"id\": \"programs.git\", \"group\": \"programs\", \"state\": \"OK\", \"found\": \"git version 2.47.3\"}}],\n \
         \"summary\": {{\"ok\": 1, \"warnings\": 0, \"failed\": 0, \"skipped\": 0}}}}\n\
         ```\n\n\
         `fix` is there with a warning or failure, `subject` where a check is made for each of several things, such as \
         providers. Ids and groups are stable; words may change. This page is made by the code: what stands under each check \
         is everything that it can find, with made-up values.\n",
        PATIENCE.as_secs(),
        State::Failed.word(),
        too_long().found,
    );
    let examples = examples();
    for group in Group::ALL {
        let _ = write!(text, "\n## {}\n", group.title());
        for entry in ENTRIES.iter().filter(|entry| entry.group == group) {
            let _ = write!(text, "\n### `{}`\n\nLooks at: {}.\n\n", entry.id, entry.looks_at);
            text.push_str("| State | Found | Fix |\n|---|---|---|\n");
            let mut seen = BTreeSet::new();
            for check in examples.iter().filter(|check| check.id == entry.id) {
                let fix = check.fix.as_deref().unwrap_or_default();
                let row = format!("| {} | {} | {} |\n", check.state.word(), cell(&check.found), cell(fix));
                if seen.insert(row.clone()) {
                    text.push_str(&row);
                }
            }
        }
    }
    text
}

#[test]
fn the_generated_page_of_the_doctor_shows_every_finding() {
    crate::pages::assert_current("reference/doctor.md", &page());
}

#[tokio::test]
async fn what_hangs_is_told_and_holds_up_nothing() {
    let work = std::future::pending::<Vec<Check>>();
    let found = super::within(std::time::Duration::ZERO, &["disk."], work).await;
    let ids: Vec<&str> = found.iter().map(|check| check.id).collect();
    assert_eq!(ids, ["disk.path", "disk.file_system", "disk.space", "disk.inodes"]);
    assert!(found.iter().all(|check| check.state == State::Failed && check.found == too_long().found));
}
