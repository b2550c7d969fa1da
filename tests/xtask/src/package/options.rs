//! The options of `cargo xtask package`.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::arguments::SetupOptions;
use crate::error::{Error, Result};

/// How to make the package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageOptions {
    /// How to set up.
    pub setup: SetupOptions,
    /// Cargo's profile, where it is not `release`.
    pub profile: Option<String>,
    /// What was built already; nothing is set up or built then.
    pub built: Option<Built>,
    /// Version of the package, where it is not that of the workspace with the revision 1.
    pub version: Option<String>,
    /// Folder of the package, where it is not `package` in cargo's target folder.
    pub output: Option<PathBuf>,
    /// How dpkg-deb compresses, where it is not its default.
    pub compression: Option<String>,
}

/// What was built already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The host's binary.
    pub binary: PathBuf,
    /// The component of the policy plugin.
    pub policy: PathBuf,
}

/// Reads the arguments after `package`; `None` when help is wanted.
///
/// # Errors
/// [`Error::Usage`] that names the argument.
pub fn parse(arguments: Vec<OsString>) -> Result<Option<PackageOptions>> {
    let mut options = PackageOptions::default();
    let (mut binary, mut policy) = (None, None);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let name = argument.to_string_lossy().into_owned();
        let mut value = || arguments.next().ok_or_else(|| usage(format!("`{name}` wants a value")));
        match name.as_str() {
            "--no-packages" => options.setup.no_packages = true,
            "--profile" => options.profile = Some(word(value()?, "profile")?),
            "--binary" => binary = Some(PathBuf::from(value()?)),
            "--policy" => policy = Some(PathBuf::from(value()?)),
            "--version" => options.version = Some(version(value()?)?),
            "--output" => options.output = Some(value()?.into()),
            "--compression" => options.compression = Some(word(value()?, "compression")?),
            "--help" | "-h" => return Ok(None),
            _ => return Err(usage(format!("unknown argument `{name}`"))),
        }
    }
    options.built = match (binary, policy) {
        (Some(binary), Some(policy)) => Some(Built { binary, policy }),
        (None, None) => None,
        _ => return Err(usage("`--binary` and `--policy` go together".to_owned())),
    };
    if options.built.is_some() && options.profile.is_some() {
        return Err(usage("`--profile` is for a build, and `--binary` gives what was built".to_owned()));
    }
    Ok(Some(options))
}

fn word(value: OsString, what: &str) -> Result<String> {
    let is_plain = |text: &String| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    };
    let value = value.to_string_lossy().into_owned();
    Some(value.clone()).filter(is_plain).ok_or_else(|| usage(format!("`{value}` is no name of a {what}")))
}

/// A version as deb-version(7) wants it. It becomes part of a file's name.
fn version(value: OsString) -> Result<String> {
    let value = value.to_string_lossy().into_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".+~-".contains(c);
    if value.starts_with(|c: char| c.is_ascii_digit()) && value.chars().all(plain) && !value.ends_with('-') {
        return Ok(value);
    }
    Err(usage(format!("`{value}` is no version of a package; one begins with a digit, such as 0.1.0-1")))
}

fn usage(problem: String) -> Error {
    Error::Usage { problem: format!("package: {problem}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<PackageOptions>> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn every_option_is_understood() {
        let built = Built { binary: "/b".into(), policy: "/p".into() };
        let all = PackageOptions {
            built: Some(built),
            version: Some("0.1.0-2".to_owned()),
            output: Some("/o".into()),
            compression: Some("none".to_owned()),
            ..PackageOptions::default()
        };
        let line = "--binary /b --policy /p --version 0.1.0-2 --output /o --compression none";
        assert_eq!(read(line).unwrap(), Some(all));
        assert_eq!(read("").unwrap(), Some(PackageOptions::default()));
        assert_eq!(read("--help").unwrap(), None);
        let dev = PackageOptions { profile: Some("dev".to_owned()), ..PackageOptions::default() };
        assert_eq!(read("--profile dev").unwrap(), Some(dev));
    }

    #[test]
    fn wrong_options_are_named() {
        for (line, named) in [
            ("--binary /b", "--policy"),
            ("--binary /b --policy /p --profile dev", "--profile"),
            ("--version", "--version"),
            ("--version v1", "v1"),
            ("--version 1/../2", "1/../2"),
            ("--profile --x", "--x"),
            ("more", "more"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.to_string().contains(named), "{line}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
