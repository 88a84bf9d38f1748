//! Which certificates Redis may show: those the system trusts and those of the configured file. rustls with ring, as for
//! AWS's own endpoints; `openssl` stays Pingora's.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use redis::TlsCertificates;
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::store::StoreError;

/// Reads the certificates to trust.
///
/// # Errors
/// When the file cannot be read, holds no certificate, or nothing at all is trusted.
pub(super) fn certificates(ca_file: Option<&Path>) -> Result<TlsCertificates, StoreError> {
    // The driver takes the process's provider; another part may have installed the same one before.
    if CryptoProvider::get_default().is_none() && ring::default_provider().install_default().is_err() {
        log::debug!("a TLS provider was installed meanwhile");
    }
    let mut trusted = Vec::new();
    if let Some(path) = ca_file {
        let unusable = |why: String| StoreError::Failed(format!("{} cannot be used: {why}", path.display()));
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
            trusted.push(certificate.map_err(|error| unusable(error.to_string()))?);
        }
        if trusted.is_empty() {
            return Err(unusable("it holds no certificate".to_owned()));
        }
    }
    trusted.extend(rustls_native_certs::load_native_certs().certs);
    // A system may hold certificates that rustls does not take; one of them must not stop the others.
    let mut probe = RootCertStore::empty();
    trusted.retain(|certificate| probe.add(certificate.clone()).is_ok());
    if trusted.is_empty() {
        return Err(StoreError::Failed(
            "no certificate is trusted: install the system's (package ca-certificates) or set a file".to_owned(),
        ));
    }
    Ok(TlsCertificates { client_tls: None, root_cert: Some(pem(&trusted)) })
}

fn pem(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    let blocks: Vec<_> = certificates
        .iter()
        .map(|certificate| {
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(certificate))
        })
        .collect();
    blocks.concat().into_bytes()
}
