//! A Debian root file system of a test's own, in which packages are installed and programs run.
//!
//! It is a copy of the test image. Every command gets a mount namespace of its own, with /proc, /sys and a few devices in the
//! copy, and then has it as its root: no command can name a file of the machine, and no mount stays.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::host::variable;

/// Makes the mounts, then becomes the command in the root `$1`. A mere `chroot` will not do: the kernel lets nobody in one
/// make a user namespace.
const ENTER: &str = r#"
set -eu
root="$1"
shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for node in null zero full random urandom; do
    : > "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
cd "$root"
mkdir dev/machine
pivot_root . dev/machine
cd /
umount --no-mtab --lazy /dev/machine
rmdir /dev/machine
exec "$@"
"#;

/// A root file system; dropping it removes it.
pub struct DebianRoot {
    folder: tempfile::TempDir,
}

impl DebianRoot {
    /// A copy of the test image.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ostler-test-root-").tempdir()?;
        // The host runs as an unprivileged user and must reach its data.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let image = variable("OSTLER_TEST_IMAGE")?;
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--numeric-owner", "--preserve-permissions", "--directory"]).arg(folder.path());
        checked(tar.arg("--file").arg(image))?;
        Ok(Self { folder })
    }

    /// Where a path of the root is on the machine.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    /// A command in the root, with a plain environment. Its process number is the command's own.
    #[must_use]
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]).arg(self.folder.path());
        command.arg(program).args(arguments).stdin(Stdio::null()).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8").env("NO_COLOR", "1");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Runs a command that must succeed; what it wrote to both outputs.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        checked(&mut self.command(program, arguments))
    }

    /// Every path with its kind, mode and owner, and what stands in the files of /etc. What dpkg and the shadow suite
    /// write about themselves is left out: logs, the database, copies of the tables of users, and locks.
    pub fn files(&self) -> Result<BTreeMap<PathBuf, String>> {
        let root = self.folder.path();
        let mut found = BTreeMap::new();
        let mut front = vec![root.to_owned()];
        while let Some(folder) = front.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                let relative = path.strip_prefix(root)?.to_owned();
                if is_of_tools(&relative) {
                    continue;
                }
                let metadata = fs::symlink_metadata(&path)?;
                let content = match metadata.is_file() && relative.starts_with("etc") {
                    true => String::from_utf8_lossy(&fs::read(&path)?).into_owned(),
                    false => String::new(),
                };
                if metadata.is_dir() {
                    front.push(path);
                }
                let owner = format!("{:o} {}:{}", metadata.mode(), metadata.uid(), metadata.gid());
                found.insert(relative, format!("{owner} {content}"));
            }
        }
        Ok(found)
    }
}

fn is_of_tools(path: &Path) -> bool {
    let in_folder =
        ["var/lib/dpkg", "var/log"].iter().any(|folder| path.starts_with(folder) && path != Path::new(folder));
    let name = path.to_string_lossy();
    in_folder || name == "etc/.pwd.lock" || (name.starts_with("etc/") && name.ends_with('-'))
}

fn checked(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{:?} failed with {}:\n{told}", command.get_args(), output.status);
    Ok(told)
}
