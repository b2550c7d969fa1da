//! The certificates that programs in sandboxes trust: found and looked at before the launcher gets their path.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::AppError;

/// Where systems keep theirs: Debian, Fedora and Red Hat, Alpine and the BSDs, openSUSE.
const USUAL: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// Most bytes; what the launcher takes.
const MOST: u64 = 1 << 20;

/// The file that the operator named, else the machine's, if it has one.
///
/// # Errors
/// When the file that was named cannot serve.
pub(super) fn find(named: Option<&Path>) -> Result<Option<PathBuf>, AppError> {
    let Some(path) = named else {
        let usual = USUAL.iter().map(Path::new).find(|path| look_at(path).is_ok());
        return Ok(usual.map(Path::to_owned));
    };
    look_at(path).map(|()| Some(path.to_owned())).map_err(|error| {
        let message = format!("`egress.certificates`: {} cannot serve", path.display());
        let hint = "name a file of certificates in PEM, such as /etc/ssl/certs/ca-certificates.crt";
        AppError::new(message, hint).because(error)
    })
}

fn look_at(path: &Path) -> io::Result<()> {
    let mut content = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut content)?;
    let holds = |part: &[u8]| content.windows(part.len()).any(|window| window == part);
    if content.len() as u64 > MOST {
        Err(io::Error::other(format!("it has more than {MOST} bytes")))
    } else if holds(b"PRIVATE KEY-----") {
        Err(io::Error::other("it holds a private key, which no sandbox must see"))
    } else if holds(b"-----BEGIN CERTIFICATE-----") {
        Ok(())
    } else {
        Err(io::Error::other("it holds no certificate in PEM"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_named_must_hold_certificates_and_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let told = |content: Option<&str>| {
            let path = folder.path().join("certificates.pem");
            match content {
                Some(content) => std::fs::write(&path, content).unwrap(),
                None => drop(std::fs::remove_file(&path)),
            }
            find(Some(&path)).map(|found| found == Some(path)).map_err(|error| crate::telemetry::chain(&error))
        };
        let good = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(told(Some(good)), Ok(true));
        for (content, words) in [
            (None, "No such file"),
            (Some(""), "no certificate"),
            (Some("-----BEGIN PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\n"), "private key"),
            (Some(&*"x".repeat((MOST + 1) as usize)), "more than"),
        ] {
            let error = told(content).unwrap_err();
            assert!(error.contains("certificates.pem cannot serve") && error.contains(words), "{error}");
        }
    }
}
