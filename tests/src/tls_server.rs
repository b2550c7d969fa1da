//! A server of TLS on loopback with a certificate of its own authority, both made by `openssl`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A server that answers every request with a page. Dropping it ends it.
pub struct TlsServer {
    child: Child,
    /// Its port.
    pub port: u16,
    /// File with the certificate of its authority.
    pub authority: PathBuf,
}

impl TlsServer {
    /// Starts one in `folder` that is `name`.
    pub fn start(folder: &Path, name: &str) -> Result<Self> {
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl").args(arguments).current_dir(folder).output().context("openssl")?;
            ensure!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let authority =
            ["req", "-x509", "-subj", "/CN=Test authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"];
        openssl(&[&authority[..], &key].concat())?;
        let (subject, alternative) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
        let request =
            ["req", "-subj", &subject, "-addext", &alternative, "-keyout", "server.key", "-out", "server.csr"];
        openssl(&[&request[..], &key].concat())?;
        let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        openssl(&[&sign[..], &["-days", "2", "-copy_extensions", "copy", "-out", "server.pem"]].concat())?;
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-cert", "server.pem", "-key", "server.key", "-www"]);
        command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("openssl s_server")?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        let mut lines = output.lines().map_while(Result::ok);
        let said = lines.find_map(|line| line.strip_prefix("ACCEPT 127.0.0.1:")?.parse().ok());
        // It goes on talking; nobody listens, and its pipe must not be full.
        std::thread::spawn(move || lines.for_each(drop));
        let port = said.context("openssl s_server said no port")?;
        Ok(Self { child, port, authority: folder.join("ca.pem") })
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
