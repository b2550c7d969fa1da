//! A disk that can be filled.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// A small tmpfs in place of a folder, with the folder's content.
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts it over `folder`; 1 MiB.
    pub fn over(folder: &Path) -> Result<Self> {
        let copy = tempfile::tempdir()?;
        let run = |program: &str, arguments: &[&std::ffi::OsStr]| -> Result<()> {
            anyhow::ensure!(std::process::Command::new(program).args(arguments).status()?.success(), "{program}");
            Ok(())
        };
        let owner = fs::metadata(folder)?;
        run("cp", &["-a".as_ref(), folder.join(".").as_os_str(), copy.path().as_os_str()])?;
        let words = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"];
        let words: Vec<&std::ffi::OsStr> = words.iter().map(AsRef::as_ref).chain([folder.as_os_str()]).collect();
        run("mount", &words)?;
        let disk = Self { folder: folder.to_owned() };
        run("cp", &["-a".as_ref(), copy.path().join(".").as_os_str(), folder.as_os_str()])?;
        std::os::unix::fs::chown(folder, Some(owner.uid()), Some(owner.gid()))?;
        Ok(disk)
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }

    /// Takes all room but two pages, which may be asked for again when some of it was used.
    pub fn fill(&self) -> Result<()> {
        let mut file = fs::File::options().create(true).append(true).open(self.filler())?;
        while file.write_all(&[0; 4096]).is_ok() {}
        let size = file.metadata()?.len();
        file.set_len(size.saturating_sub(8192))?;
        Ok(())
    }

    /// Takes the last byte.
    pub fn fill_to_the_brim(&self) -> Result<()> {
        let mut file = fs::File::options().create(true).append(true).open(self.filler())?;
        while file.write_all(&[0; 512]).is_ok() {}
        Ok(())
    }

    /// Gives the room back.
    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l".as_ref(), self.folder.as_os_str()]).status();
    }
}
