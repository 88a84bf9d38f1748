use std::os::unix::fs::PermissionsExt;

use openssl::asn1::Asn1Time;
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::{X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509PurposeId, X509StoreContext, X509VerifyResult};

use super::*;

struct Directory(PathBuf);

impl Directory {
    /// A path at which nothing is.
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("dheera-ai-dev-cert-{name}-{}", std::process::id())))
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).unwrap()
    }

    fn all(&self) -> Vec<Vec<u8>> {
        ["ca.pem", "cert.pem", "key.pem"].map(|name| self.read(name)).into()
    }

    /// What the command says.
    fn run(&self, hosts: &[&str], renew: bool) -> Result<String, String> {
        let host = hosts.iter().map(|name| host(name).unwrap()).collect();
        let mut out = Vec::new();
        let arguments = DevCertArgs { dir: self.0.clone(), host, renew };
        run(&arguments, &mut out).map_err(|failure| failure.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    /// Whether a client that trusts the authority takes the certificate for this host, by the strict rules.
    fn verifies(&self, host: &str) -> bool {
        let certificate = X509::from_pem(&self.read("cert.pem")).unwrap();
        let mut store = X509StoreBuilder::new().unwrap();
        store.add_cert(X509::from_pem(&self.read("ca.pem")).unwrap()).unwrap();
        let mut param = X509VerifyParam::new().unwrap();
        param.set_flags(X509VerifyFlags::X509_STRICT).unwrap();
        param.set_purpose(X509PurposeId::SSL_SERVER).unwrap();
        match host.parse() {
            Ok(ip) => param.set_ip(ip).unwrap(),
            Err(_) => param.set_host(host).unwrap(),
        }
        store.set_param(&param).unwrap();
        let mut context = X509StoreContext::new().unwrap();
        let verify = |context: &mut openssl::x509::X509StoreContextRef| {
            context.verify_cert()?;
            Ok(context.error())
        };
        let result = context.init(&store.build(), &certificate, &Stack::new().unwrap(), verify).unwrap();
        result == X509VerifyResult::OK
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A test that made nothing leaves nothing.
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

#[test]
fn what_is_made_passes_strict_verification_for_every_name() {
    let directory = Directory::new("strict");
    let said = directory.run(&["Proxy.lan", "192.168.1.7", "0:0:0:0:0:0:0:1", "*.example.test"], false).unwrap();
    for host in ["localhost", "127.0.0.1", "::1", "proxy.lan", "192.168.1.7", "a.example.test"] {
        assert!(directory.verifies(host), "{host}");
    }
    for host in ["other.lan", "192.168.1.8", "example.test"] {
        assert!(!directory.verifies(host), "{host}");
    }
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(directory.verifies(own.trim()), "{own}");
    for told in ["AWS_CA_BUNDLE=", "NODE_EXTRA_CA_CERTS=", "SSL_CERT_FILE=", "REQUESTS_CA_BUNDLE=", "--cacert", "1.44"]
    {
        assert!(said.contains(told), "{told} in {said}");
    }
    let start = format!("--ssl-certfile-path {0}/cert.pem --ssl-keyfile-path {0}/key.pem", directory.0.display());
    assert!(said.contains(&start), "{said}");
}

#[test]
fn it_holds_for_at_most_397_days_and_signs_nothing_else() {
    let today = Date::constant(2027, 12, 31);
    let made = Made::new(vec!["localhost".to_owned()], today).unwrap();
    for pem in [&made.ca, &made.certificate] {
        let certificate = X509::from_pem(pem.as_bytes()).unwrap();
        let valid = certificate.not_before().diff(certificate.not_after()).unwrap();
        assert_eq!((valid.days, valid.secs), (397, 0));
        // 2027-12-30.
        assert_eq!(certificate.not_before(), &*Asn1Time::from_unix(1_830_124_800).unwrap());
    }
    let ca = X509::from_pem(made.ca.as_bytes()).unwrap();
    assert_eq!(ca.pathlen(), Some(0));
    let other = X509::from_pem(Made::new(Vec::new(), today).unwrap().ca.as_bytes()).unwrap();
    assert_ne!(ca.subject_name().to_der().unwrap(), other.subject_name().to_der().unwrap());
}

#[test]
fn there_are_three_files_and_only_the_owner_reads_the_key() {
    let directory = Directory::new("files");
    directory.run(&[], false).unwrap();
    let mut files: Vec<_> = fs::read_dir(&directory.0)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().permissions().mode() & 0o777)
        })
        .collect();
    files.sort();
    assert_eq!(files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["ca.pem", "cert.pem", "key.pem"]);
    assert_eq!(files[2].1, 0o600);
    let keys = |text: Vec<u8>| String::from_utf8(text).unwrap().matches("PRIVATE KEY-----").count();
    assert_eq!(directory.all().into_iter().map(keys).collect::<Vec<_>>(), [0, 0, 2]);
}

#[test]
fn a_good_certificate_is_kept_and_told_again_until_it_is_renewed() {
    let directory = Directory::new("kept");
    let said = directory.run(&["a.test"], false).unwrap();
    let made = directory.all();
    assert_eq!(directory.run(&[], false).unwrap(), said);
    assert_eq!(directory.run(&["A.test", "::1"], false).unwrap(), said);
    let refused = directory.run(&["b.test"], false).unwrap_err();
    assert!(refused.contains("is not for b.test") && refused.contains("--renew"), "{refused}");
    assert_eq!(directory.all(), made);
    directory.run(&["b.test"], true).unwrap();
    assert!(directory.all().iter().zip(&made).all(|(new, old)| new != old));
    assert!(directory.verifies("b.test") && !directory.verifies("a.test"));
}

#[test]
fn files_of_others_are_not_overwritten_unless_told() {
    let foreign = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["a.test".to_owned()]).unwrap();
    let pem = params.self_signed(&foreign).unwrap().pem();
    let cases: [(&str, Vec<(&str, String)>); 4] = [
        ("key", vec![("key.pem", foreign.serialize_pem())]),
        ("garbage", vec![("cert.pem", "mine".to_owned()), ("key.pem", "mine".to_owned())]),
        ("pair", vec![("cert.pem", pem.clone()), ("key.pem", foreign.serialize_pem())]),
        ("all", vec![("ca.pem", pem.clone()), ("cert.pem", pem), ("key.pem", foreign.serialize_pem())]),
    ];
    for (name, files) in cases {
        let directory = Directory::new(name);
        fs::create_dir_all(&directory.0).unwrap();
        for (name, content) in &files {
            fs::write(directory.0.join(name), content).unwrap();
        }
        let refused = directory.run(&[], false).unwrap_err();
        assert!(refused.contains("is not overwritten") && refused.contains("--renew"), "{refused}");
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), files.len());
        assert!(files.iter().all(|(name, content)| directory.read(name) == content.as_bytes()), "{name}");
        directory.run(&[], true).unwrap();
        assert!(directory.verifies("localhost"), "{name}");
    }
}

#[test]
fn an_expired_certificate_of_ours_is_replaced() {
    let directory = Directory::new("expired");
    let old = Made::new(vec!["localhost".to_owned()], Date::constant(2020, 1, 1)).unwrap();
    let files = CertificateFiles { certificate: directory.0.join("cert.pem"), key: directory.0.join("key.pem") };
    Place { ca: directory.0.join("ca.pem"), files }.write(&old).unwrap();
    assert!(!directory.verifies("localhost"));
    directory.run(&[], false).unwrap();
    assert!(directory.verifies("localhost"));
}

#[test]
fn hosts_are_names_or_addresses() {
    for good in ["localhost", "my-host.lan", "*.lan", "10.0.0.1", "fe80::1", "host_1"] {
        assert!(host(good).is_ok(), "{good}");
    }
    for bad in ["", "https://a", "a:4000", "a b", "a..b", "-a", "ä.test", "*", "a.*.b"] {
        assert!(host(bad).is_err(), "{bad}");
    }
    assert_eq!(quoted("/a/b-1.pem"), "/a/b-1.pem");
    assert_eq!(quoted("/it's here"), r"'/it'\''s here'");
}
