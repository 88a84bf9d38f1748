//! The certificate in force: shown in each handshake, and replaced while the proxy runs when its files change.
//!
//! Connections that are open keep what they have; a resumed session shows no certificate at all. Files are read every
//! two seconds rather than watched: that also sees a link that is turned over, as Kubernetes does with secrets.
//! Whether a pair can be used is decided in `config::certificate`; protocols and ciphers are Mozilla's "intermediate"
//! (TLS 1.2 and 1.3), as Pingora sets them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_core::listeners::TlsAccept;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::protocols::tls::TlsRef;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;

use crate::config::Tls;
use crate::config::certificate::{CertificateFiles, CertificateFlaw, CertificateText, Fingerprint, ServerCertificate};
use crate::telemetry::metrics::Metrics;

const POLL: Duration = Duration::from_secs(2);

/// How often in a row a pair must be found bad before that is told: whoever replaces two files is between them for a
/// moment.
const POLLS_UNTIL_TOLD: u32 = 2;

type InForce = Arc<ArcSwap<ServerCertificate>>;

/// What is shown, and where it is read.
#[derive(Clone)]
pub(super) struct Shown {
    files: Arc<ArcSwap<CertificateFiles>>,
    in_force: InForce,
}

impl Shown {
    pub(super) fn certificate(&self) -> Arc<ServerCertificate> {
        self.in_force.load_full()
    }

    /// Shows the certificate of another configuration from now on, and follows its files.
    pub(super) fn show(&self, tls: &Tls, metrics: &Metrics) {
        self.files.store(Arc::new(tls.files.clone()));
        if self.in_force.swap(Arc::clone(&tls.certificate)) != tls.certificate {
            metrics.tls_certificate(tls.certificate.not_after_s());
            metrics.tls_certificate_reloaded(true);
        }
    }
}

/// The settings of the listener, and what keeps its certificate fresh.
///
/// # Errors
/// When OpenSSL cannot be set up.
pub(super) fn listener(tls: Tls, metrics: Arc<Metrics>) -> pingora_core::Result<(TlsSettings, Reload)> {
    let in_force: InForce = Arc::new(ArcSwap::new(tls.certificate));
    let mut settings = TlsSettings::with_callbacks(Box::new(Handshakes(Arc::clone(&in_force))))?;
    settings.enable_h2();
    Ok((settings, Reload { shown: Shown { files: Arc::new(ArcSwap::from_pointee(tls.files)), in_force }, metrics }))
}

struct Handshakes(InForce);

#[async_trait]
impl TlsAccept for Handshakes {
    async fn certificate_callback(&self, handshake: &mut TlsRef) {
        if let Err(error) = self.0.load().show(handshake) {
            tracing::error!("a handshake fails, because OpenSSL does not take the certificate: {error}");
        }
    }
}

/// Puts the certificate of the files in force whenever they change.
pub(super) struct Reload {
    pub shown: Shown,
    metrics: Arc<Metrics>,
}

#[async_trait]
impl BackgroundService for Reload {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        self.metrics.tls_certificate(self.shown.certificate().not_after_s());
        let mut watch = Watch::new(*self.shown.certificate().fingerprint());
        loop {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                _ = shutdown.changed() => return,
            }
            let files = self.shown.files.load_full();
            let reading = Arc::clone(&files);
            // A file system may keep its reader waiting.
            let Ok(read) = tokio::task::spawn_blocking(move || reading.read()).await else { continue };
            if !Arc::ptr_eq(&files, &self.shown.files.load()) {
                // Meanwhile other files are to be followed.
                continue;
            }
            let in_force = *self.shown.certificate().fingerprint();
            if watch.in_force != in_force {
                watch = Watch::new(in_force);
            }
            self.act(&files, watch.look(read));
        }
    }
}

impl Reload {
    fn act(&self, files: &CertificateFiles, seen: Seen) {
        match seen {
            Seen::NothingNew => {}
            Seen::Changed(certificate) => {
                let file = files.certificate.display();
                if let Some(what) = certificate.untimely(jiff::Timestamp::now().as_second()) {
                    tracing::warn!("{file} {what}: clients refuse it");
                }
                tracing::info!("new connections are shown the new certificate of {file}");
                self.metrics.tls_certificate(certificate.not_after_s());
                self.metrics.tls_certificate_reloaded(true);
                self.shown.in_force.store(Arc::new(*certificate));
            }
            Seen::Unusable(CertificateFlaw { file, what, remedy }) => {
                let file = files.path(file).display();
                tracing::warn!("the certificate from before stays in use: {file} {what}. {remedy}");
                self.metrics.tls_certificate_reloaded(false);
            }
        }
    }
}

/// What a look at the files found.
#[derive(Debug)]
enum Seen {
    NothingNew,
    Changed(Box<ServerCertificate>),
    /// Told once for each content.
    Unusable(CertificateFlaw),
}

/// What the looks before found.
struct Watch {
    in_force: Fingerprint,
    bad_in_a_row: u32,
    /// What was told last, and of which content, if the files could be read.
    told: Option<(Option<Fingerprint>, CertificateFlaw)>,
}

impl Watch {
    const fn new(in_force: Fingerprint) -> Self {
        Self { in_force, bad_in_a_row: 0, told: None }
    }

    fn look(&mut self, read: Result<CertificateText, CertificateFlaw>) -> Seen {
        let content = read.as_ref().ok().map(CertificateText::fingerprint);
        if content == Some(self.in_force) {
            (self.bad_in_a_row, self.told) = (0, None);
            return Seen::NothingNew;
        }
        match read.and_then(|text| ServerCertificate::parse(&text)) {
            Ok(certificate) => {
                *self = Self::new(*certificate.fingerprint());
                Seen::Changed(Box::new(certificate))
            }
            Err(flaw) => {
                self.bad_in_a_row = self.bad_in_a_row.saturating_add(1);
                let found = (content, flaw);
                if self.bad_in_a_row < POLLS_UNTIL_TOLD || self.told.as_ref() == Some(&found) {
                    return Seen::NothingNew;
                }
                Seen::Unusable(self.told.insert(found).1.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    struct Pair {
        directory: std::path::PathBuf,
        files: CertificateFiles,
    }

    impl Pair {
        fn new(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("dheera-ai-tls-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&directory).unwrap();
            let files = CertificateFiles { certificate: directory.join("cert.pem"), key: directory.join("key.pem") };
            let pair = Self { directory, files };
            pair.certificate(&pair.key());
            pair
        }

        /// Writes a new key and gives it.
        fn key(&self) -> KeyPair {
            let key = KeyPair::generate().unwrap();
            std::fs::write(&self.files.key, key.serialize_pem()).unwrap();
            key
        }

        fn certificate(&self, key: &KeyPair) {
            let params = CertificateParams::new(["proxy.test".to_owned()]).unwrap();
            std::fs::write(&self.files.certificate, params.self_signed(key).unwrap().pem()).unwrap();
        }

        fn watch(&self) -> Watch {
            Watch::new(*self.files.load().unwrap().fingerprint())
        }
    }

    impl Drop for Pair {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.directory).unwrap();
        }
    }

    #[test]
    fn a_new_pair_is_found_once() {
        let pair = Pair::new("new");
        let mut watch = pair.watch();
        assert!(matches!(watch.look(pair.files.read()), Seen::NothingNew));
        pair.certificate(&pair.key());
        let Seen::Changed(found) = watch.look(pair.files.read()) else { panic!("the new pair is not seen") };
        assert_eq!(found.fingerprint(), &pair.files.read().unwrap().fingerprint());
        assert!(matches!(watch.look(pair.files.read()), Seen::NothingNew));
    }

    #[test]
    fn half_a_change_is_passed_over_for_a_moment() {
        let pair = Pair::new("half");
        let mut watch = pair.watch();
        let key = pair.key();
        assert!(matches!(watch.look(pair.files.read()), Seen::NothingNew), "the writer is between the two");
        pair.certificate(&key);
        assert!(matches!(watch.look(pair.files.read()), Seen::Changed(_)));
        pair.key();
        assert!(matches!(watch.look(pair.files.read()), Seen::NothingNew), "the count begins anew");
    }

    #[test]
    fn what_stays_unusable_is_told_once_for_each_content() {
        let pair = Pair::new("bad");
        let good = std::fs::read(&pair.files.key).unwrap();
        let mut watch = pair.watch();
        let told = |watch: &mut Watch| match watch.look(pair.files.read()) {
            Seen::Unusable(flaw) => Some(flaw.what),
            Seen::NothingNew => None,
            Seen::Changed(_) => panic!("that pair cannot be used"),
        };
        pair.key();
        assert_eq!(told(&mut watch), None);
        assert!(told(&mut watch).unwrap().contains("does not belong"));
        assert_eq!(told(&mut watch), None);
        std::fs::write(&pair.files.key, "no key").unwrap();
        assert!(told(&mut watch).unwrap().contains("no PEM private key"));
        std::fs::remove_file(&pair.files.key).unwrap();
        assert!(told(&mut watch).unwrap().contains("cannot be read"));
        assert_eq!(told(&mut watch), None);
        std::fs::write(&pair.files.key, good).unwrap();
        assert_eq!(told(&mut watch), None, "as it was at first");
        std::fs::remove_file(&pair.files.key).unwrap();
        assert_eq!((told(&mut watch), told(&mut watch).is_some()), (None, true));
    }
}
