//! What a git that was killed leaves in a repository: locks, which would refuse every later change, and half-made packs.
//!
//! Must run while no git writes to the repository. What lies there was written by whoever had taken git over, so no link is
//! followed, and nothing but names that git itself gives to what is unfinished is removed.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;

use super::RepositoryName;

/// Folders within folders of references that are looked into: a name has at most 200 bytes.
const DEEPEST: usize = 100;

/// Removes the leftovers in a repository. What cannot be removed is told in the log, and by the git that it hinders.
pub(super) async fn remove(root: &Path, repository: &RepositoryName) {
    let folder = root.join(format!("{repository}.git"));
    let removed = tokio::task::spawn_blocking(move || remove_in(&folder)).await;
    match removed.map_err(io::Error::other).and_then(|removed| removed) {
        Ok(0) => {}
        Ok(count) => tracing::warn!(%repository, count, "removed what a killed git had left"),
        Err(error) => tracing::warn!(%repository, %error, "what a killed git left could not be removed"),
    }
}

fn remove_in(repository: &Path) -> io::Result<usize> {
    let is_lock = |name: &str| name.ends_with(".lock");
    let mut removed = remove_where(repository, 0, &is_lock)?;
    removed += remove_where(&repository.join("refs"), DEEPEST, &is_lock)?;
    // A quarantine holds what was pushed until all of it was checked.
    let is_half_made = |name: &str| name.starts_with("tmp_") || name.starts_with("incoming-");
    removed += remove_where(&repository.join("objects"), 0, &is_half_made)?;
    removed += remove_where(&repository.join("objects/pack"), 0, &is_half_made)?;
    Ok(removed)
}

fn remove_where(folder: &Path, depth: usize, is_wanted: &dyn Fn(&str) -> bool) -> io::Result<usize> {
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Ok(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    }
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let entry: DirEntry = entry?;
        let is_folder = entry.file_type()?.is_dir();
        if entry.file_name().to_str().is_some_and(is_wanted) {
            if is_folder {
                fs::remove_dir_all(entry.path())?
            } else {
                fs::remove_file(entry.path())?
            }
            removed += 1;
        } else if is_folder && depth > 0 {
            removed += remove_where(&entry.path(), depth - 1, is_wanted)?;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_removed_and_nothing_else_nor_through_a_link() {
        let world = tempfile::tempdir().unwrap();
        let at = |path: &str| world.path().join(path);
        for folder in ["demo.git/refs/heads/a", "demo.git/objects/pack", "demo.git/objects/incoming-x/pack", "outside"]
        {
            fs::create_dir_all(at(folder)).unwrap();
        }
        let left =
            ["HEAD.lock", "packed-refs.lock", "refs/heads/a/b.lock", "objects/tmp_obj_x", "objects/pack/tmp_pack_x"];
        let kept = ["HEAD", "refs/heads/a/b", "objects/pack/pack-1.pack", "objects/pack/pack-1.keep"];
        for file in left.iter().chain(&kept) {
            fs::write(at("demo.git").join(file), "x").unwrap();
        }
        fs::write(at("outside/x.lock"), "x").unwrap();
        std::os::unix::fs::symlink(at("outside"), at("demo.git/refs/heads/link")).unwrap();
        std::os::unix::fs::symlink(at("outside"), at("demo.git/refs/link.lock")).unwrap();
        // The five, the quarantine, and the link that is named like a lock.
        assert_eq!(remove_in(&at("demo.git")).unwrap(), 7);
        for file in kept {
            assert!(at("demo.git").join(file).exists(), "{file}");
        }
        for file in left.into_iter().chain(["objects/incoming-x", "refs/link.lock"]) {
            assert!(!at("demo.git").join(file).exists(), "{file}");
        }
        assert!(at("outside/x.lock").exists());
        // Nor where the folder itself is a link.
        fs::remove_dir_all(at("demo.git/refs")).unwrap();
        std::os::unix::fs::symlink(at("outside"), at("demo.git/refs")).unwrap();
        assert_eq!(remove_in(&at("demo.git")).unwrap(), 0);
        assert!(at("outside/x.lock").exists());
    }
}
