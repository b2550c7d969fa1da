//! Images: minimal Debian root file systems, as tar files in the user's cache folder.
//!
//! What goes into them is data, in `images`. The file's name holds the fingerprint of the recipe, the release and
//! the architecture, so a file that is there is the right one; it is written under another name and renamed when it
//! is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use super::apt_sources;
use crate::error::{Error, Result};
use crate::layout::{self, Layout};
use crate::output::{self, Outcome};
use crate::process;
use crate::stamp::Fingerprint;

/// An image that the set-up can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// What workspaces are built from.
    Base,
    /// The same with ordinary programs, for tests.
    Programs,
}

impl Image {
    /// The folder of its packages, and the beginning of its file's name.
    fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Programs => "programs",
        }
    }

    /// Folders whose packages it has; the first has what else the recipe holds.
    fn recipes(self, layout: &Layout) -> Vec<PathBuf> {
        let names: &[&str] = if self == Self::Base { &["base"] } else { &["base", "programs"] };
        names.iter().map(|name| layout.root.join("images").join(name)).collect()
    }
}

/// Longest time for mmdebstrap; it needs about a minute, or five.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// How many images of one name, of other recipes and clones, stay in the cache.
const KEPT: usize = 3;

/// Makes an image where it is not there yet and returns its path.
///
/// # Errors
/// [`Error::Missing`] when this is no Debian; [`Error::Command`] when mmdebstrap fails.
pub fn build(layout: &Layout, image: Image, refresh: bool) -> Result<(PathBuf, Outcome)> {
    let (name, recipes) = (image.name(), image.recipes(layout));
    let release = running_release()?;
    let mut fingerprint = Fingerprint::new(&format!("{name} image 1"));
    for recipe in &recipes {
        fingerprint = fingerprint.tree(recipe)?;
    }
    let fingerprint = fingerprint.text(&release).text(std::env::consts::ARCH);
    let directory = layout::make_directory(&layout.cache.join("images"))?;
    let tar = directory.join(format!("{name}-{}.tar", fingerprint.hex()));
    if tar.is_file() && !refresh {
        return Ok((tar, Outcome::Fresh));
    }

    let work = layout::make_directory(&layout.scratch()?.join(format!("image-{name}-{}", std::process::id())))?;
    let partial = directory.join(format!("{name}-{}.{}.partial", fingerprint.hex(), std::process::id()));
    let made = make(&recipes, &release, &work, &partial, &layout.scratch()?.join("mmdebstrap.log"));
    let _ = fs::remove_dir_all(&work);
    if let Err(error) = made {
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    fs::rename(&partial, &tar).map_err(Error::file("rename", &partial))?;
    let size = fs::metadata(&tar).map_err(Error::file("look at", &tar))?.len();
    prune(&directory, name)?;
    Ok((tar.clone(), Outcome::Done(format!("Debian {release}, {} MiB in {}", size >> 20, tar.display()))))
}

fn make(recipes: &[PathBuf], release: &str, work: &Path, partial: &Path, log: &Path) -> Result<()> {
    let mut packages = Vec::new();
    for recipe in recipes {
        let list = recipe.join("packages.txt");
        let text = fs::read_to_string(&list).map_err(Error::file("read", &list))?;
        packages.extend(package_list(&text).into_iter().map(str::to_owned));
    }
    let (packages, recipe) = (packages.join(","), &recipes[0]);
    let sources = apt_sources::for_release(Path::new("/etc/apt"), release)?;
    let apt = work.join("apt.conf");
    let dump = process::read(Command::new("apt-config").arg("dump"), Duration::from_secs(60))?;
    fs::write(&apt, transport_settings(&dump, Path::new("/etc/apt"))).map_err(Error::file("write", &apt))?;
    let standard_input = work.join("sources");
    fs::write(&standard_input, sources).map_err(Error::file("write", &standard_input))?;

    output::note(&format!("  packages: {packages}"));
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--mode=auto", "--format=tar", "--skip=output/dev"]);
    command.arg(format!("--include={packages}"));
    command.arg(format!("--aptopt={}", apt.display()));
    command.arg(format!("--dpkgopt={}", recipe.join("dpkg.conf").display()));
    command.arg(format!("--hook-directory={}", recipe.join("hooks").display()));
    command.arg(release).arg(partial).arg("-");
    command.stdin(fs::File::open(&standard_input).map_err(Error::file("open", &standard_input))?);
    // Two images of one day and one state of the mirror are the same, byte for byte. An earlier date would be put on
    // files newer than it and make Python's compiled modules look stale.
    command.env("SOURCE_DATE_EPOCH", today().to_string());
    if std::env::var_os("TMPDIR").is_none() {
        // /tmp may be mounted without devices, or in memory.
        command.env("TMPDIR", "/var/tmp");
    }
    process::run_ticking(&mut command, "mmdebstrap", log, LIMIT, is_phase)?;
    add_empty_dev(work, partial)
}

/// Device nodes stay out (nobody may make them in a user namespace); their directory is a mount point and must exist.
fn add_empty_dev(work: &Path, tar: &Path) -> Result<()> {
    layout::make_directory(&work.join("dev"))?;
    let mut append = Command::new("tar");
    append.args(["--append", "--owner=0", "--group=0", "--numeric-owner", "--mode=0755"]);
    append.arg(format!("--mtime=@{}", today())).arg("--file").arg(tar).arg("--directory").arg(work).arg("./dev");
    process::read(append.stdin(Stdio::null()), Duration::from_secs(60)).map(|_| ())
}

/// The packages of a list: one per line, `#` begins a comment.
fn package_list(text: &str) -> Vec<&str> {
    let uncommented = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    uncommented.filter(|name| !name.is_empty()).collect()
}

/// How the machine's apt reaches its mirrors: proxies, certificates, time-outs, logins. The recipe removes them from
/// the finished image.
fn transport_settings(dump: &str, directory: &Path) -> String {
    const KEPT: &[&str] = &["http", "https", "Check-", "Retries", "Force", "Allow"];
    let wanted = |line: &&str| {
        let name = line.strip_prefix("Acquire::").unwrap_or_default();
        KEPT.iter().any(|kept| name.starts_with(kept)) && !line.ends_with("\"\";")
    };
    let mut text: String = dump.lines().filter(wanted).flat_map(|line| [line, "\n"]).collect();
    for (setting, name) in [("Dir::Etc::netrc", "auth.conf"), ("Dir::Etc::netrcparts", "auth.conf.d")] {
        let path = directory.join(name);
        if path.exists() {
            text.push_str(&format!("{setting} \"{}\";\n", path.display()));
        }
    }
    text
}

fn is_phase(line: &str) -> bool {
    let work = ["running", "downloading", "extracting", "installing", "cleaning", "creating"];
    line.strip_prefix("I: ").is_some_and(|text| work.iter().any(|word| text.starts_with(word)))
}

/// Code name of the running Debian release, such as `bookworm`.
fn running_release() -> Result<String> {
    let path = Path::new("/etc/os-release");
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    release_of(&text).ok_or_else(|| Error::Missing {
        what: "this machine does not run a Debian release, and the base image is made from the running one".to_owned(),
        hint: "run this on Debian 12 or 13".to_owned(),
    })
}

fn release_of(os_release: &str) -> Option<String> {
    let field = |name: &str| {
        let value = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| value.trim_matches('"').to_owned())
    };
    field("VERSION_CODENAME").filter(|_| field("ID").as_deref() == Some("debian"))
}

/// Midnight, in seconds since the epoch.
fn today() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    now - now % 86_400
}

/// Removes all but the newest images, and what interrupted runs left.
fn prune(directory: &Path, name: &str) -> Result<()> {
    let entries = fs::read_dir(directory).map_err(Error::file("list", directory))?;
    let mut images = Vec::new();
    let own = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&format!("{name}-"));
    for path in entries.flatten().filter(own).map(|entry| entry.path()) {
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
        let Ok(modified) = modified else { continue };
        let stale = modified.elapsed().is_ok_and(|age| age > LIMIT);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("tar") => images.push((modified, path)),
            Some("partial") if stale => fs::remove_file(&path).map_err(Error::file("remove", &path))?,
            _ => {}
        }
    }
    images.sort();
    let surplus = images.len().saturating_sub(KEPT);
    for (_, path) in images.into_iter().take(surplus) {
        fs::remove_file(&path).map_err(Error::file("remove", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_list_may_have_comments() {
        assert_eq!(package_list("# tools\ngit\n\n  python3  # runs the demo\n"), ["git", "python3"]);
    }

    #[test]
    fn only_debian_has_a_release() {
        assert_eq!(release_of("ID=debian\nVERSION_CODENAME=trixie\n").as_deref(), Some("trixie"));
        assert_eq!(release_of("ID=\"debian\"\nVERSION_CODENAME=\"bookworm\"\n").as_deref(), Some("bookworm"));
        assert_eq!(release_of("ID=ubuntu\nVERSION_CODENAME=noble\n"), None);
        assert_eq!(release_of("ID=debian\n"), None);
    }

    #[test]
    fn only_settings_about_transport_go_along() {
        let dump = "APT::Architecture \"amd64\";\nAcquire \"\";\nAcquire::http \"\";\n\
                    Acquire::http::Proxy \"http://proxy:3128\";\nAcquire::Check-Date \"false\";\n\
                    Acquire::IndexTargets::deb::Packages::MetaKey \"x\";\nDPkg::Post-Invoke:: \"rm\";\n";
        assert_eq!(
            transport_settings(dump, Path::new("/nowhere")),
            "Acquire::http::Proxy \"http://proxy:3128\";\nAcquire::Check-Date \"false\";\n"
        );
    }

    #[test]
    fn phases_stay_and_chatter_does_not() {
        assert!(is_phase("I: downloading packages with apt..."));
        assert!(!is_phase("I: chroot architecture amd64 is equal to the host's architecture"));
        assert!(!is_phase("Setting up git"));
    }
}
