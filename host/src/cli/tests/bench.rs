//! What the tests share: a printer that remembers, a host to talk to, repositories on disk.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::api::ApiToken;
use crate::api::tests::fake::TOKEN;
use crate::cli::client::Client;
use crate::cli::output::Printer;

/// A stream that remembers.
#[derive(Clone, Default)]
pub struct Stream(Arc<Mutex<Vec<u8>>>);

impl Stream {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A printer, with its stdout and stderr.
pub fn printer() -> (Printer, Stream, Stream) {
    let (out, err) = (Stream::default(), Stream::default());
    (Printer::of_test(Box::new(out.clone()), Box::new(err.clone())), out, err)
}

/// A client of the host at `address`.
pub fn client(address: std::net::SocketAddr) -> Client {
    Client::at(&format!("http://{address}"), ApiToken::parse(TOKEN).unwrap()).unwrap()
}

/// Runs git in `folder` as a person without any configuration of this machine.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(arguments);
    for (name, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_SYSTEM", "/dev/null"),
        ("GIT_AUTHOR_NAME", "Ada"),
        ("GIT_AUTHOR_EMAIL", "ada@example.org"),
        ("GIT_COMMITTER_NAME", "Ada"),
        ("GIT_COMMITTER_EMAIL", "ada@example.org"),
    ] {
        command.env(name, value);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// A repository with one commit on `main`, in the folder `name`.
pub fn repository(name: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().canonicalize().unwrap().join(name);
    std::fs::create_dir(&folder).unwrap();
    git(&folder, &["init", "--quiet", "--initial-branch=main"]);
    commit(&folder, "first");
    (parent, folder)
}

/// Commits a change; gives the commit.
pub fn commit(folder: &Path, text: &str) -> String {
    std::fs::write(folder.join("file"), text).unwrap();
    git(folder, &["add", "file"]);
    git(folder, &["commit", "--quiet", "--message", text]);
    git(folder, &["rev-parse", "HEAD"])
}
