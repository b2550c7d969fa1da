//! What the unit of the service says, as far as a test has to do it in systemd's place.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// The section `[Service]` of an installed unit, and others: assignments in their order.
pub(super) struct Unit(Vec<(String, String)>);

impl Unit {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ok(Self(lines.filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()))
    }

    /// The one value of a key.
    pub(super) fn value(&self, key: &str) -> Result<&str> {
        let mut values = self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let value = values.next().with_context(|| format!("the unit has no {key}"))?;
        anyhow::ensure!(values.next().is_none(), "the unit has more than one {key}");
        Ok(value)
    }

    /// The command line of the service behind a program that takes away what the unit takes away.
    pub(super) fn command_line(&self) -> Result<Vec<String>> {
        anyhow::ensure!(self.value("NoNewPrivileges")? == "yes");
        let kept = self.value("CapabilityBoundingSet")?.split(' ');
        let kept: String = kept.map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase())).collect();
        let confined = ["setpriv", "--no-new-privs", "--inh-caps=-all"].map(str::to_owned);
        let service = self.value("ExecStart")?.split(' ').map(str::to_owned);
        Ok(confined.into_iter().chain([format!("--bounding-set=-all{kept}")]).chain(service).collect())
    }
}

/// Needs `systemd-analyze`, which the set-up of the tests installs.
#[test]
fn systemd_understands_every_line_of_the_unit() -> Result<()> {
    let root = tempfile::tempdir()?;
    let units = root.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&units)?;
    fs::create_dir_all(root.path().join("usr/bin"))?;
    fs::copy(ostler_tests::host::binary()?, root.path().join("usr/bin/ostler"))?;
    for target in ["network-online", "multi-user", "sysinit", "basic", "shutdown"] {
        fs::write(units.join(format!("{target}.target")), "[Unit]\nDescription=A target\n")?;
    }
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/debian/ostler.service");
    let verify = |text: &str| -> Result<(bool, String)> {
        fs::write(units.join("ostler.service"), text)?;
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no", "--recursive-errors=yes", "--root"]).arg(root.path()).arg("ostler.service");
        let output = command.env("LC_ALL", "C").output().context("install `systemd`: it has systemd-analyze")?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let text = fs::read_to_string(unit)?;
    assert_eq!(verify(&text)?, (true, String::new()));
    let (_, told) = verify(&text.replace("KillMode=process", "KillMood=process"))?;
    assert!(told.contains("KillMood"), "a wrong line is told: {told}");
    Ok(())
}
