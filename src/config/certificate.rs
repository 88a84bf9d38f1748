//! The certificate that the proxy shows to its clients: read from two PEM files and checked as far as OpenSSL would check
//! it in a handshake, so that what is accepted here cannot fail there (measured with OpenSSL 3.0: a key of another
//! certificate, a key below its security level, an encrypted key).
//!
//! It does not decide when files are read: that is at the start, and whenever they change (`app/tls.rs`).

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslAcceptor, SslMethod, SslRef};
use openssl::x509::X509;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A chain of RSA certificates takes less than 10 KB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where the certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Tells contents apart, and nothing of the key.
pub type Fingerprint = [u8; 32];

/// Both files as they were read.
pub struct CertificateText {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// Which of the two files is wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFlaw {
    pub file: CertificateFile,
    /// Goes on after the name of the file.
    pub what: String,
    /// What to do.
    pub remedy: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateFile {
    Certificate,
    Key,
}

/// A certificate, the others of its chain, and its key, which fits.
pub struct ServerCertificate {
    leaf: X509,
    chain: Vec<X509>,
    key: PKey<Private>,
    /// Seconds since 1970 from which and until which it is valid.
    not_before_s: i64,
    not_after_s: i64,
    fingerprint: Fingerprint,
}

/// Of the same files.
impl PartialEq for ServerCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for ServerCertificate {}

/// Without anything of the key.
impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("not_after_s", &self.not_after_s).finish_non_exhaustive()
    }
}

impl CertificateFiles {
    /// The name of one of them.
    #[must_use]
    pub fn path(&self, file: CertificateFile) -> &Path {
        match file {
            CertificateFile::Certificate => &self.certificate,
            CertificateFile::Key => &self.key,
        }
    }

    /// # Errors
    /// When one of them cannot be read.
    pub fn read(&self) -> Result<CertificateText, CertificateFlaw> {
        let read = |file| {
            read(self.path(file)).map_err(|error| CertificateFlaw {
                file,
                what: format!("cannot be read: {error}"),
                remedy: "Check its path, and that the user of the proxy may read it",
            })
        };
        Ok(CertificateText {
            certificate: read(CertificateFile::Certificate)?.to_vec(),
            key: read(CertificateFile::Key)?,
        })
    }

    /// Reads and checks both.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(&self) -> Result<ServerCertificate, CertificateFlaw> {
        ServerCertificate::parse(&self.read()?)
    }
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    // A pipe or a device would be waited for.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

impl CertificateText {
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        hash.update(self.certificate.len().to_be_bytes());
        hash.update(&self.certificate);
        hash.update(&*self.key);
        hash.finalize().into()
    }
}

impl ServerCertificate {
    /// # Errors
    /// When a file is not PEM, they do not belong together, or OpenSSL would not use them.
    pub fn parse(text: &CertificateText) -> Result<Self, CertificateFlaw> {
        let flaw = |file, what: &str, remedy| CertificateFlaw { file, what: what.to_owned(), remedy };
        let certificates = X509::stack_from_pem(&text.certificate).unwrap_or_default();
        let mut certificates = certificates.into_iter();
        let Some(leaf) = certificates.next() else {
            let remedy = "Write the server's certificate as PEM, then those of the intermediate authorities";
            return Err(flaw(CertificateFile::Certificate, "holds no PEM certificate", remedy));
        };
        let chain: Vec<X509> = certificates.collect();
        let key = private_key(&text.key)?;
        if !leaf.public_key().is_ok_and(|public| public.public_eq(&key)) {
            let remedy =
                "Give the key of the first certificate in the file; the server's own comes first, then the others";
            return Err(flaw(CertificateFile::Key, "does not belong to the certificate", remedy));
        }
        try_out(&leaf, &chain, &key).map_err(|error| CertificateFlaw {
            file: CertificateFile::Certificate,
            what: format!("cannot be used: {}", reason(&error)),
            remedy: "Make one with a key of at least 2048 bits (RSA) or 256 bits (ECDSA) and SHA-256",
        })?;
        let (Ok(not_before_s), Ok(not_after_s)) = (seconds(leaf.not_before()), seconds(leaf.not_after())) else {
            let remedy = "Make another certificate";
            return Err(flaw(CertificateFile::Certificate, "has a time that cannot be read", remedy));
        };
        Ok(Self { leaf, chain, key, not_before_s, not_after_s, fingerprint: text.fingerprint() })
    }

    /// Shows this certificate in a handshake that asks for one.
    ///
    /// # Errors
    /// When memory is short; everything else was tried in `parse`.
    pub fn show(&self, handshake: &mut SslRef) -> Result<(), ErrorStack> {
        handshake.set_certificate(&self.leaf)?;
        for other in &self.chain {
            handshake.add_chain_cert(other.clone())?;
        }
        handshake.set_private_key(&self.key)
    }

    /// Of the contents it was read from.
    #[must_use]
    pub const fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The certificate itself, without its chain.
    #[must_use]
    pub const fn leaf(&self) -> &X509 {
        &self.leaf
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn not_after_s(&self) -> i64 {
        self.not_after_s
    }

    /// Why clients will not accept it at this time, in seconds since 1970.
    #[must_use]
    pub fn untimely(&self, now_s: i64) -> Option<String> {
        let date = |seconds| jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |at| at.to_string());
        if now_s > self.not_after_s {
            return Some(format!("has expired on {}", date(self.not_after_s)));
        }
        (now_s < self.not_before_s).then(|| format!("is not valid before {}", date(self.not_before_s)))
    }
}

fn private_key(pem: &[u8]) -> Result<PKey<Private>, CertificateFlaw> {
    // With a passphrase, though an empty one, OpenSSL does not ask for one on the terminal.
    PKey::private_key_from_pem_passphrase(pem, b"").map_err(|_| {
        let (what, remedy) = if memchr::memmem::find(pem, b"ENCRYPTED").is_some() {
            ("is encrypted", "Decrypt it with `openssl pkey -in <file> -out <new file>`, readable by the proxy alone")
        } else {
            ("holds no PEM private key", "Write the key that belongs to the certificate, as PEM")
        };
        CertificateFlaw { file: CertificateFile::Key, what: what.to_owned(), remedy }
    })
}

/// As Pingora sets up a listener with these.
fn try_out(leaf: &X509, chain: &[X509], key: &PKey<Private>) -> Result<(), ErrorStack> {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
    acceptor.set_certificate(leaf)?;
    for other in chain {
        acceptor.add_extra_chain_cert(other.clone())?;
    }
    acceptor.set_private_key(key)?;
    acceptor.check_private_key()
}

fn reason(error: &ErrorStack) -> String {
    let reasons: Vec<&str> = error.errors().iter().filter_map(openssl::error::Error::reason).collect();
    if reasons.is_empty() { "OpenSSL refuses it".to_owned() } else { reasons.join(", ") }
}

fn seconds(time: &openssl::asn1::Asn1TimeRef) -> Result<i64, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    Ok(i64::from(since.days) * 86_400 + i64::from(since.secs))
}

#[cfg(test)]
mod tests;
