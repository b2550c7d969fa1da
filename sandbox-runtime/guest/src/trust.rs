//! Whom programs in the sandbox trust: the operator's certificates, told in the variables that programs know.
//!
//! A file at a place of its own changes nothing in the image; each library has its own name for where to look.

use std::path::Path;

use ostler_wire::guest::CERTIFICATES;

/// Variables that name a bundle: OpenSSL (also rustls and Go), curl, Python's requests and pip, Node (in addition to its own),
/// git, cargo, Nix, and the command line of AWS.
const VARIABLES: [&str; 9] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "NIX_SSL_CERT_FILE",
    "AWS_CA_BUNDLE",
];

/// What is added to an environment, as `NAME=value`. A variable that was given stays what it is.
pub(crate) fn variables(given: &[(String, String)]) -> Vec<String> {
    if Path::new(CERTIFICATES).is_file() { added(given) } else { Vec::new() }
}

fn added(given: &[(String, String)]) -> Vec<String> {
    let missing = VARIABLES.iter().filter(|variable| given.iter().all(|(name, _)| name != *variable));
    missing.map(|variable| format!("{variable}={CERTIFICATES}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_not_said_otherwise() {
        let given = [("PATH".to_owned(), "/bin".to_owned()), ("PIP_CERT".to_owned(), "/own".to_owned())];
        let added = added(&given);
        assert_eq!(added.len(), VARIABLES.len() - 1);
        assert!(added.contains(&"SSL_CERT_FILE=/dev/ca-certificates.crt".to_owned()), "{added:?}");
        assert!(!added.iter().any(|variable| variable.starts_with("PIP_CERT=")), "{added:?}");
    }
}
