//! Is the configuration right? Everything that is wrong is told, each on its own.

use std::io;

use super::context::Looker;
use super::finding::{Check, Finding};
use crate::config::{ConfigError, DEFAULT_FILE, Loaded};
use crate::telemetry::chain;

const FILE: &str = "configuration.file";

pub(super) fn judge(read: &Result<Loaded, ConfigError>, looker: Looker) -> Vec<Check> {
    let finding = match read {
        Ok(Loaded { file: Some(path), .. }) => Finding::ok(format!("{} is right", path.display())),
        Ok(Loaded { file: None, .. }) => {
            Finding::ok(format!("there is no {DEFAULT_FILE}; the defaults and the environment hold"))
        }
        Err(ConfigError::Wrong(problems)) => {
            let one = |problem: &crate::config::Problem| {
                let fix = problem.hint.clone().unwrap_or_else(|| "correct it there".to_owned());
                Finding::failed(problem.to_string(), fix).of(FILE)
            };
            return problems.iter().map(one).collect();
        }
        Err(error @ ConfigError::Read { source, .. }) => match (source.kind(), looker) {
            (io::ErrorKind::PermissionDenied, Looker::Another) => Finding::skipped(chain(error)),
            (io::ErrorKind::NotFound, _) => {
                Finding::failed(chain(error), "name another with `--config` or `OSTLER_CONFIG`, or write it")
            }
            _ => Finding::failed(chain(error), "check its permissions and its disk"),
        },
        Err(error @ ConfigError::Table { .. }) => {
            Finding::failed(chain(error), "this is a defect of Ostler; please report it")
        }
    };
    vec![finding.of(FILE)]
}

#[cfg(test)]
pub(super) fn examples() -> Vec<Check> {
    use crate::config::{Inputs, Place, Position, Problem};
    let none = |_: &str| None;
    let loaded = |file: Option<&str>| {
        let mut loaded =
            Inputs { default_file: "/nonexistent".into(), ..Inputs::new(&none, "/".into()) }.load().unwrap();
        loaded.file = file.map(Into::into);
        Ok(loaded)
    };
    let problem = |message: &str, hint: Option<&str>| Problem {
        place: Place::File("/etc/ostler/config.toml".into(), Position { line: 2, column: 1 }),
        message: message.into(),
        hint: hint.map(Into::into),
    };
    let wrong = vec![
        problem("unknown key `host.lsten`", Some("did you mean `listen`?")),
        problem("`host.listen` is said twice", None),
    ];
    let unreadable =
        |kind: io::ErrorKind| Err(ConfigError::Read { path: "/etc/ostler/config.toml".into(), source: kind.into() });
    [
        judge(&loaded(Some("/etc/ostler/config.toml")), Looker::Root),
        judge(&loaded(None), Looker::Root),
        judge(&Err(ConfigError::Wrong(wrong)), Looker::Root),
        judge(&unreadable(io::ErrorKind::NotFound), Looker::Root),
        judge(&unreadable(io::ErrorKind::PermissionDenied), Looker::Root),
        judge(&unreadable(io::ErrorKind::PermissionDenied), Looker::Another),
        judge(&Err(ConfigError::Table { key: "host.data" }), Looker::Root),
    ]
    .concat()
}
