//! What dpkg reads: what the package is and needs, which files the operator may change, the maintainer scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{About, SHORT, tool, tree};
use crate::error::{Error, Result};
use crate::layout::{self, Layout};
use crate::process;

/// What the host runs or reads beside its libraries. It speaks to nftables itself, and needs no `nft`.
const DEPENDS: &[(&str, &str)] =
    &[("git", "bare repositories of the built-in forge"), ("passwd", "`useradd` and `userdel`")];

/// What a usual installation has; the second for hosts of ordinary users.
const RECOMMENDS: &str = "ca-certificates, uidmap";

/// What makes images.
const SUGGESTS: &str = "mmdebstrap";

/// The scripts, which dpkg runs as root.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

const DESCRIPTION: &str = "\
Description: host of coding agents
 A person writes a prompt; an agent works on their repository in a sandbox;
 everyone who has the token watches and steers; and a pull request comes out
 under the person's own name. Every step passes typed hooks that sandboxed
 WebAssembly plugins implement.
";

/// Writes the folder `DEBIAN` of `root`. `work` is a folder for what is needed on the way.
///
/// # Errors
/// [`Error::Missing`] when there is no dpkg-shlibdeps; [`Error::File`].
pub fn write(layout: &Layout, work: &Path, root: &Path, about: &About) -> Result<()> {
    let libraries = libraries(work, &root.join("usr/bin/ostler"))?;
    let files = files(root)?;
    let folder = layout::make_directory(&root.join("DEBIAN"))?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).map_err(Error::file("open", &folder))?;
    tree::write(&folder.join("control"), &control(about, &libraries, &built_using()?, kibibytes(root, &files)?))?;
    let of_operator = files.iter().filter(|file| file.starts_with("etc"));
    let conffiles: String = of_operator.map(|file| format!("/{}\n", file.display())).collect();
    tree::write(&folder.join("conffiles"), &conffiles)?;
    let mut sums = Command::new("md5sum");
    // dpkg keeps the sums of what the operator may change itself.
    let of_package = files.iter().filter(|file| !file.starts_with("etc"));
    let sums = process::read(sums.current_dir(root).arg("--").args(of_package), SHORT)?;
    tree::write(&folder.join("md5sums"), &sums)?;
    for script in SCRIPTS {
        let source = layout.root.join("host/debian").join(script);
        let target = folder.join(script);
        fs::copy(&source, &target).map_err(Error::file("copy", &source))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).map_err(Error::file("open", &target))?;
    }
    Ok(())
}

fn control(about: &About, libraries: &str, built_using: &str, kibibytes: u64) -> String {
    let About { version, architecture, maintainer, .. } = about;
    let depends: Vec<&str> = std::iter::once(libraries).chain(DEPENDS.iter().map(|(name, _)| *name)).collect();
    format!(
        "Package: ostler\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {maintainer}\n\
         Installed-Size: {kibibytes}\nDepends: {}\nRecommends: {RECOMMENDS}\nSuggests: {SUGGESTS}\n\
         Built-Using: {built_using}\nSection: admin\nPriority: optional\n{DESCRIPTION}",
        depends.join(", ")
    )
}

/// The packages of the libraries that the program loads, by what dpkg knows of their versions.
fn libraries(work: &Path, program: &Path) -> Result<String> {
    // It wants a source package around it.
    let source = "Source: ostler\n\nPackage: ostler\nArchitecture: any\n";
    tree::write(&work.join("debian/control"), source)?;
    let mut command = Command::new("dpkg-shlibdeps");
    let output = tool(command.current_dir(work).arg("-O").arg(program), "dpkg-dev", SHORT)?;
    found_libraries(&output).ok_or_else(|| Error::Malformed {
        what: "dpkg-shlibdeps".to_owned(),
        problem: format!("no line `shlibs:Depends=` in `{}`", output.trim()),
    })
}

fn found_libraries(output: &str) -> Option<String> {
    let list = output.lines().find_map(|line| line.strip_prefix("shlibs:Depends="))?.trim();
    (!list.is_empty()).then(|| list.to_owned())
}

/// The sources of the C library, which the sandbox's first process holds.
fn built_using() -> Result<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${source:Package} (= ${source:Version})", "libc6-dev"]);
    process::read(&mut query, SHORT)
}

/// Every file and link of the tree, relative to it, in the order of names.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut front = vec![root.to_owned()];
    while let Some(folder) = front.pop() {
        for entry in fs::read_dir(&folder).map_err(Error::file("list", &folder))? {
            let entry = entry.map_err(Error::file("list", &folder))?;
            let kind = entry.file_type().map_err(Error::file("look at", entry.path()))?;
            if kind.is_dir() {
                front.push(entry.path());
            } else if kind.is_file() {
                found.extend(entry.path().strip_prefix(root).map(Path::to_owned));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// As Debian counts it: each file in whole kibibytes.
fn kibibytes(root: &Path, files: &[PathBuf]) -> Result<u64> {
    files.iter().try_fold(0, |sum, file| {
        let path = root.join(file);
        let size = fs::metadata(&path).map_err(Error::file("look at", &path))?.len();
        Ok(sum + size.div_ceil(1024))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_needs_stands_before_what_it_runs() {
        let about = About {
            version: "0.1.0-1".to_owned(),
            architecture: "amd64".to_owned(),
            maintainer: "A <a@b>".to_owned(),
            epoch: "0".to_owned(),
        };
        let libraries = found_libraries("shlibs:Depends=libc6 (>= 2.36), libseccomp2\n").unwrap();
        let control = control(&about, &libraries, "glibc (= 2.36-9)", 7);
        assert!(control.contains("\nDepends: libc6 (>= 2.36), libseccomp2, git, passwd\n"), "{control}");
        assert!(control.contains("\nInstalled-Size: 7\n"), "{control}");
        assert_eq!(found_libraries("shlibs:Depends=\n"), None);
        assert_eq!(found_libraries(""), None);
    }
}
