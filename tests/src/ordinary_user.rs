//! A user without any right of root's, with subordinate ids as distributions give them, known in a mount namespace only.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};

use crate::host::{binary, variable};

/// Subordinate ids of a user.
pub const SUBORDINATE: u32 = 65_536;

/// Makes the machine's users those of the folder `$1` and its `ostler` the program `$2`, shows the image `$3` and becomes the
/// user `$4`.
const ENTER: &str = r#"
set -eu
folder="$1"; program="$2"; image="$3"; user="$4"
shift 4
for name in passwd group subuid subgid; do
    [ -e "/etc/$name" ] || : > "/etc/$name"
    mount --bind "$folder/$name" "/etc/$name"
done
mount --bind "$program" "$folder/bin/ostler"
mount --bind "$image" "$folder/image.tar"
cd "$folder/home"
exec setpriv --reuid "$user" --regid "$user" --clear-groups --inh-caps=-all "$@"
"#;

/// An ordinary user; dropping it removes its folder.
pub struct OrdinaryUser {
    folder: tempfile::TempDir,
    /// Its uid and gid.
    pub id: u32,
    /// The first of its subordinate uids and gids.
    pub first: u32,
}

impl OrdinaryUser {
    /// A user with a home. No two of the tests that run at one time share an id.
    pub fn new() -> Result<Self> {
        static USERS: AtomicU32 = AtomicU32::new(0);
        let slot = (std::process::id() + USERS.fetch_add(1, Ordering::Relaxed)) % 1024;
        let (id, first) = (0x0700_0000 + slot, 0x0800_0000 + slot * SUBORDINATE);
        let folder = tempfile::Builder::new().prefix("ostler-user-").tempdir()?;
        let path = |name: &str| folder.path().join(name);
        chown(folder.path(), Some(id), Some(id))?;
        for name in ["home", "run", "bin"] {
            fs::create_dir(path(name))?;
            chown(path(name), Some(id), Some(id))?;
        }
        for (name, text) in [
            (
                "passwd",
                format!("root:x:0:0::/root:/bin/sh\nordinary:x:{id}:{id}::{}:/bin/sh\n", path("home").display()),
            ),
            ("group", format!("root:x:0:\nordinary:x:{id}:\n")),
            ("subuid", format!("ordinary:{first}:{SUBORDINATE}\n")),
            ("subgid", format!("ordinary:{first}:{SUBORDINATE}\n")),
            ("bin/ostler", String::new()),
            ("image.tar", String::new()),
        ] {
            fs::write(path(name), text)?;
        }
        Ok(Self { folder, id, first })
    }

    /// A path in the user's folder; `home` is its home, `image.tar` the test image.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of the user's in its home, with a plain environment. Its process number is the command's own.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]).arg(self.folder.path());
        command.arg(binary()?).arg(variable("OSTLER_TEST_IMAGE")?).arg(self.id.to_string());
        command.arg(program).args(arguments).stdin(Stdio::null()).env_clear();
        command.env("HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.path("run"));
        command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", self.path("bin").display()));
        command.env("NO_COLOR", "1").env("LC_ALL", "C.UTF-8");
        Ok(command)
    }

    /// Runs a command that must succeed; what it wrote to its output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program, arguments)?.output()?;
        let [said, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        ensure!(output.status.success(), "{program} {arguments:?}: {said}{errors}");
        Ok(said)
    }

    /// Uids of the user's processes and of those with its subordinate ids, by process.
    #[must_use]
    pub fn processes(&self) -> Vec<(i32, u32)> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let uid = |pid: i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse::<u32>().ok()
        };
        let theirs = |uid: &u32| *uid == self.id || (self.first..self.first + SUBORDINATE).contains(uid);
        pids.filter_map(|pid| Some((pid, uid(pid).filter(theirs)?))).collect()
    }
}
