//! HTTP clients: how connections are made and whom they trust.
//!
//! Owns the choice of TLS. Does not know who is called or why.

use std::sync::Once;

use reqwest::ClientBuilder;
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};

/// A client of an `http:` address: it trusts no certificate, so it needs none and reads no file.
pub fn plain() -> ClientBuilder {
    provider();
    let nobody = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    common().tls_backend_preconfigured(nobody)
}

/// A client of an `https:` address that trusts what the machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` count).
/// Building it reads the machine's certificates and fails where there are none.
pub fn trusting() -> ClientBuilder {
    provider();
    common()
}

fn common() -> ClientBuilder {
    // A redirect would carry what was meant for one host to another one.
    reqwest::Client::builder().redirect(Policy::none()).user_agent(concat!("ostler/", env!("CARGO_PKG_VERSION")))
}

/// Chooses the cryptography of the process, once: ring, which builds without cmake.
fn provider() {
    static CHOSEN: Once = Once::new();
    CHOSEN.call_once(|| {
        // An error says that somebody chose before; theirs is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
