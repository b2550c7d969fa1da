//! Is it the right time? Certificates, pauses that a provider names, and the order of sessions depend on it.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ostler_sandbox::probe;

use super::context::Network;
use super::finding::{Check, Finding};
use super::models::Answer;

/// A provider's date has whole seconds and takes a while: less than this is no difference.
const NOTABLE: Duration = Duration::from_secs(5 * 60);
/// More breaks certificates and every pause until a date.
const WRONG: Duration = Duration::from_secs(60 * 60);

/// A file of this much later than now was written by a clock that was right.
const SLACK: Duration = Duration::from_secs(120);

const SET: &str = "timedatectl set-ntp true, or apt-get install systemd-timesyncd";

/// `program` is this binary: it was not built after now.
pub(super) fn examine(program: &Path, index: Option<&Path>, answers: &[Answer], network: Network) -> Vec<Check> {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|found| found.modified()).ok();
    let newest = modified(program).max(index.and_then(modified));
    let ahead = newest.and_then(|newest| newest.duration_since(SystemTime::now()).ok());
    let mut checks =
        vec![time(ahead).of("clock.time"), synchronised(&probe::clock_is_synchronised()).of("clock.synchronised")];
    let offsets = answers.iter().filter_map(|answer| {
        let (theirs, ours) = answer.clock?;
        Some(offset(theirs, ours).about("clock.offset", &answer.provider))
    });
    checks.extend(offsets);
    if !checks.iter().any(|check| check.id == "clock.offset") {
        checks.push(no_offset(network).of("clock.offset"));
    }
    checks
}

/// `ahead` is how far the newest file is in the future.
fn time(ahead: Option<Duration>) -> Finding {
    match ahead {
        Some(ahead) if ahead > SLACK => {
            Finding::failed(format!("the clock is at least {} behind: there are newer files", words(ahead)), SET)
        }
        _ => Finding::ok("later than every file that is known"),
    }
}

fn synchronised(told: &io::Result<bool>) -> Finding {
    match told {
        Ok(true) => Finding::ok("a time service says so"),
        Ok(false) => Finding::warning("no time service has told the kernel that its clock is right", SET),
        Err(error) => Finding::skipped(format!("the kernel does not tell: {error}")),
    }
}

fn offset(theirs: SystemTime, ours: SystemTime) -> Finding {
    let (difference, direction) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let found = format!("{} {direction} the provider's", words(difference));
    match difference {
        much if much >= WRONG => {
            Finding::failed(format!("{found}: its certificate and its pauses (Retry-After) are judged wrong"), SET)
        }
        some if some >= NOTABLE => Finding::warning(found, SET),
        _ => Finding::ok("within five minutes of the provider's"),
    }
}

fn no_offset(network: Network) -> Finding {
    Finding::skipped(match network {
        Network::Offline => "not asked: --offline",
        Network::Asked => "no provider told the time",
    })
}

fn words(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
pub(super) fn examples() -> Vec<Check> {
    let mut all: Vec<Check> =
        [None, Some(Duration::from_secs(3 * 86_400))].map(|ahead| time(ahead).of("clock.time")).into();
    for told in [Ok(true), Ok(false), Err(io::ErrorKind::PermissionDenied.into())] {
        all.push(synchronised(&told).of("clock.synchronised"));
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for seconds in [10, 300, 3_600] {
        let span = Duration::from_secs(seconds);
        all.push(offset(now, now + span).about("clock.offset", "openai"));
        all.push(offset(now, now - span).about("clock.offset", "openai"));
    }
    all.extend([Network::Offline, Network::Asked].map(|network| no_offset(network).of("clock.offset")));
    all
}
