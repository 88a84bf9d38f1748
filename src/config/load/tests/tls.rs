use std::env;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;

/// Certificates and keys in a directory of their own.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let directory = env::temp_dir().join(format!("dheera-ai-config-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    /// `<name>.pem` and `<name>.key`, expired on the first day of this year.
    fn pair(self, name: &str, expires: i32) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["proxy.test".to_owned()]).unwrap();
        params.not_after = date_time_ymd(expires, 1, 1);
        std::fs::write(self.0.join(format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(self.0.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        self
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn general(&self, certificate: &str, key: &str, rest: &str) -> String {
        let (certificate, key) = (self.path(certificate), self.path(key));
        format!("general_settings:\n  ssl_certfile_path: {certificate}\n  ssl_keyfile_path: {key}\n{rest}")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

const REGION: (&str, &str) = ("AWS_REGION", "us-east-1");

#[test]
fn the_certificate_comes_from_command_line_file_or_environment_in_this_order() {
    let files = Files::new("order").pair("a", 4000).pair("b", 4000).pair("c", 4000);
    let names = ["a.pem", "a.key", "c.pem", "c.key"].map(|name| files.path(name));
    let environment = [REGION, ("SSL_CERTFILE_PATH", names[2].as_str()), ("SSL_KEYFILE_PATH", names[3].as_str())];
    let cli = CliOverrides {
        ssl_certfile_path: Some(names[0].clone().into()),
        ssl_keyfile_path: Some(names[1].clone().into()),
        ssl_port: Some(0),
        ..CliOverrides::default()
    };
    let file = files.general("b.pem", "b.key", "  ssl_port: 4443\n");
    for (text, cli, certificate, port) in [
        (file.as_str(), &cli, "a.pem", Some(0)),
        (&file, &CliOverrides::default(), "b.pem", Some(4443)),
        ("", &CliOverrides::default(), "c.pem", None),
    ] {
        let loaded = load_with(text, &environment, cli).unwrap_or_else(|problems| panic!("{problems}"));
        let tls = loaded.config.listen.tls.as_ref().unwrap();
        assert_eq!((tls.files.certificate.clone(), tls.port), (files.path(certificate).into(), port));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let shown = show::to_yaml(&loaded.config);
        assert!(shown.contains(&format!("ssl_certfile_path: \"{}\"", files.path(certificate))), "{shown}");
        assert!(show::listen(&loaded.config).contains("valid until 4000-01-01"));
    }
    assert!(good("", &[REGION]).config.listen.tls.is_none());
    assert!(good("", &[REGION, ("SSL_CERTFILE_PATH", "")]).config.listen.tls.is_none());
}

#[test]
fn what_is_wrong_with_tls_has_its_place_file_and_remedy() {
    let files = Files::new("wrong").pair("a", 4000).pair("b", 4000);
    std::fs::write(files.path("none"), "no PEM").unwrap();
    let only = |key: &str, file: &str| format!("general_settings:\n  {key}: {}\n", files.path(file));
    for (text, place, what, remedy) in [
        (only("ssl_certfile_path", "a.pem"), "2:22", "stands without `ssl_keyfile_path`", "the private key"),
        (only("ssl_keyfile_path", "a.key"), "2:21", "stands without `ssl_certfile_path`", "the certificate"),
        ("general_settings: {ssl_port: 4443}\n".to_owned(), "1:30", "without a certificate", "dev-cert"),
        ("general_settings: {ssl_port: 70000}\n".to_owned(), "1:30", "`70000` is not", "65535"),
        (files.general("a.pem", "a.key", "  ssl_port: 4000\n"), "4:13", "is 4000, the port of plain HTTP", "Choose"),
        (files.general("a.pem", "a.key", "  ssl_port: x\n"), "4:13", "`x` is not", "65535"),
        (files.general("missing", "a.key", ""), "2:22", "missing` cannot be read: No such file", "Check"),
        (files.general("", "a.key", ""), "2:22", "` cannot be read: it is not a file", "Check"),
        (files.general("none", "a.key", ""), "2:22", "none` holds no PEM certificate", "intermediate"),
        (files.general("a.pem", "none", ""), "3:21", "none` holds no PEM private key", "as PEM"),
        (files.general("a.pem", "b.key", ""), "3:21", "b.key` does not belong to the certificate", "first"),
    ] {
        let problems = bad(&text, &[REGION]).problems;
        let [problem] = problems.as_slice() else { panic!("not one problem: {problems:?}\n{text}") };
        assert_eq!(problem.origin.to_string(), format!("c.yaml:{place}"), "{problem}\n{text}");
        assert!(problem.what.contains(what), "{problem}\nlacks {what}");
        assert!(problem.remedy.contains(remedy), "{problem}\nlacks {remedy}");
    }
}

#[test]
fn an_expired_certificate_is_a_warning() {
    let files = Files::new("expired").pair("a", 2020);
    let loaded = good(&files.general("a.pem", "a.key", ""), &[REGION]);
    let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
    let warning = warning.to_string();
    assert!(warning.contains("a.pem` has expired on 2020-01-01") && warning.contains("renew it"), "{warning}");
}

#[test]
fn half_a_pair_on_the_command_line_is_told_there() {
    let files = Files::new("half").pair("a", 4000);
    let cli = CliOverrides { ssl_certfile_path: Some(files.path("a.pem").into()), ..CliOverrides::default() };
    let problems = load_with("", &[REGION], &cli).unwrap_err();
    assert_eq!(problems.problems[0].origin, Origin::CommandLine("--ssl-certfile-path"));
    let secret = [REGION, ("SSL_CERTFILE_PATH", "canary"), ("SSL_KEYFILE_PATH", "canary")];
    let problems = load_with("", &secret, &CliOverrides::default()).unwrap_err().to_string();
    assert!(problems.contains("the value of SSL_CERTFILE_PATH cannot be read"), "{problems}");
    assert!(!problems.contains("canary"), "{problems}");
}
