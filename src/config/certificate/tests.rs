use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, date_time_ymd};

use super::*;

fn text(certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> CertificateText {
    CertificateText { certificate: certificate.into(), key: Zeroizing::new(key.into()) }
}

/// A certificate for a host and its key, both PEM.
fn pair(host: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([host.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_certificate_its_chain_and_its_key_are_read() {
    let (leaf, key) = pair("proxy.test");
    let (other, _) = pair("ca.test");
    let read = ServerCertificate::parse(&text(format!("{leaf}{other}"), key.clone())).unwrap();
    assert_eq!(read.chain.len(), 1);
    assert_eq!(read.leaf.to_pem().unwrap(), X509::from_pem(leaf.as_bytes()).unwrap().to_pem().unwrap());
    assert!(!format!("{read:?}").contains(key.lines().nth(1).unwrap()));
    let elliptic = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = CertificateParams::new(["a.test".to_owned()]).unwrap().self_signed(&elliptic).unwrap();
    ServerCertificate::parse(&text(certificate.pem(), elliptic.serialize_pem())).unwrap();
}

#[test]
fn what_cannot_be_used_is_told_with_its_file_and_remedy() {
    let (leaf, key) = pair("proxy.test");
    let (other, other_key) = pair("other.test");
    let encrypted = PKey::private_key_from_pem(key.as_bytes())
        .unwrap()
        .private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_256_cbc(), b"secret")
        .unwrap();
    let weak = weak();
    for (certificate, key, file, what, remedy) in [
        ("", key.as_bytes(), CertificateFile::Certificate, "holds no PEM certificate", "intermediate"),
        (&key, key.as_bytes(), CertificateFile::Certificate, "holds no PEM certificate", "PEM"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            key.as_bytes(),
            CertificateFile::Certificate,
            "no PEM",
            "PEM",
        ),
        (&leaf, b"", CertificateFile::Key, "holds no PEM private key", "PEM"),
        (&leaf, leaf.as_bytes(), CertificateFile::Key, "holds no PEM private key", "PEM"),
        (&leaf, other_key.as_bytes(), CertificateFile::Key, "does not belong", "comes first"),
        // The authority's certificate before the server's.
        (&format!("{other}{leaf}"), key.as_bytes(), CertificateFile::Key, "does not belong", "comes first"),
        (&leaf, &encrypted, CertificateFile::Key, "is encrypted", "openssl pkey"),
        (&weak.0, weak.1.as_bytes(), CertificateFile::Certificate, "cannot be used: ", "2048 bits"),
    ] {
        let flaw = ServerCertificate::parse(&text(certificate, key)).unwrap_err();
        assert_eq!(flaw.file, file, "{flaw:?}");
        assert!(flaw.what.contains(what) && flaw.remedy.contains(remedy), "{flaw:?} lacks {what}, {remedy}");
    }
}

/// A certificate whose key every client of today refuses: RSA with 512 bits.
fn weak() -> (String, String) {
    let key = PKey::from_rsa(openssl::rsa::Rsa::generate(512).unwrap()).unwrap();
    let mut name = openssl::x509::X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "weak.test").unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::from_unix(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    builder.sign(&key, openssl::hash::MessageDigest::sha256()).unwrap();
    let pem = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (pem(builder.build().to_pem().unwrap()), pem(key.private_key_to_pem_pkcs8().unwrap()))
}

#[test]
fn times_are_seconds_and_say_who_is_too_early_and_too_late() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["proxy.test".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2026, 1, 3);
    let pem = params.self_signed(&key).unwrap().pem();
    let read = ServerCertificate::parse(&text(pem, key.serialize_pem())).unwrap();
    assert_eq!(read.not_after_s(), 1_767_398_400);
    assert_eq!(read.untimely(1_767_398_400), None);
    assert_eq!(read.untimely(1_767_225_600), None);
    assert_eq!(read.untimely(1_767_398_401).as_deref(), Some("has expired on 2026-01-03T00:00:00Z"));
    assert_eq!(read.untimely(1_767_225_599).as_deref(), Some("is not valid before 2026-01-01T00:00:00Z"));
}

#[test]
fn a_fingerprint_tells_contents_apart() {
    let of = |certificate: &str, key: &str| text(certificate, key).fingerprint();
    assert_eq!(of("a", "b"), of("a", "b"));
    assert_ne!(of("a", "b"), of("a", "c"));
    assert_ne!(of("ab", "c"), of("a", "bc"));
}

#[test]
fn only_files_are_read() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    for (certificate, key, file) in [
        (directory.join("nowhere"), directory.join("Cargo.toml"), CertificateFile::Certificate),
        (directory.join("Cargo.toml"), directory.clone(), CertificateFile::Key),
        (PathBuf::from("/dev/zero"), directory.join("Cargo.toml"), CertificateFile::Certificate),
    ] {
        let flaw = CertificateFiles { certificate, key }.read().err().unwrap();
        assert_eq!(flaw.file, file, "{flaw:?}");
        assert!(flaw.what.starts_with("cannot be read: "), "{flaw:?}");
    }
}
