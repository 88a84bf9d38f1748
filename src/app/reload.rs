//! The configuration applied while the proxy runs: on SIGHUP and on `POST /config/reload`, one after the other, in a task
//! of its own. It is read as at the start, from the same file, environment and command line; a valid one is put in force
//! in one step, an invalid one changes nothing. Requests under way end by the configuration they began with.
//!
//! What cannot change while running is `fixed`'s to say, what is built anew `build`'s.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::future::join_all;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Notify, mpsc, oneshot, watch};

use super::build::{Built, Ground, Upstreams};
use super::fixed;
use super::notify;
use super::tls::Shown;
use crate::admin::reload::{Notes, Reloads, Report};
use crate::config::Config;
use crate::config::load::{Given, Loaded, Source, load};
use crate::config::problem::{Finding, Origin, Problems};
use crate::config::secrets::ProcessEnvironment;
use crate::deployment::fleet::Fleet;
use crate::proxy::InForce;
use crate::telemetry::metrics::Metrics;

/// How long new credentials are waited for before requests go where they are needed.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests for a reload that wait for their turn.
const QUEUE: usize = 16;

/// Where a report is wanted.
type Asked = oneshot::Sender<Report>;

/// Asks for reloads.
pub(super) struct Asker(mpsc::Sender<Asked>);

pub(super) fn channel() -> (Asker, mpsc::Receiver<Asked>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Asker(sender), receiver)
}

#[async_trait]
impl Reloads for Asker {
    async fn reload(&self) -> Option<Report> {
        let (asked, report) = oneshot::channel();
        self.0.send(asked).await.ok()?;
        report.await.ok()
    }
}

/// What is in force, and what it takes to replace it.
pub(super) struct Reloader {
    pub given: Given,
    pub config: Config,
    pub ground: Ground,
    pub in_force: InForce,
    pub upstreams: watch::Sender<Upstreams>,
    /// `None` where there is no TLS port.
    pub shown: Option<Shown>,
    pub asked: mpsc::Receiver<Asked>,
    /// Told once SIGHUP no longer ends the process.
    pub listening: Arc<Notify>,
}

/// The task.
pub(super) struct Reloading(pub Mutex<Reloader>);

#[async_trait]
impl BackgroundService for Reloading {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut reloader = self.0.lock().await;
        reloader.metrics().configuration_loaded(now_s());
        let mut hangups = signal(SignalKind::hangup());
        if let Err(error) = &hangups {
            tracing::error!("SIGHUP cannot be received, only POST /config/reload works: {error}");
        }
        reloader.listening.notify_one();
        let mut hangup = async || match &mut hangups {
            Ok(hangups) => hangups.recv().await,
            Err(_) => std::future::pending().await,
        };
        loop {
            tokio::select! {
                _ = hangup() => drop(reloader.reload().await),
                Some(asked) = reloader.asked.recv() => {
                    let report = reloader.reload().await;
                    // Whoever asked may have gone.
                    drop(asked.send(report));
                }
                _ = shutdown.changed() => return,
            }
        }
    }
}

impl Reloader {
    async fn reload(&mut self) -> Report {
        notify::reloading();
        let given = self.given.clone();
        // A file system may keep its reader waiting.
        let read = tokio::task::spawn_blocking(move || load(given.source, &ProcessEnvironment, &given.cli)).await;
        let report = match read {
            Ok(Ok(loaded)) => self.apply(loaded).await,
            Ok(Err(problems)) => Report::Refused(problems),
            Err(error) => self.refused(String::new(), format!("the configuration could not be read: {error}")),
        };
        self.tell(&report);
        notify::reloaded();
        report
    }

    async fn apply(&mut self, Loaded { mut config, warnings }: Loaded) -> Report {
        let notes = Notes { warnings, restart_required: fixed::keep(&self.config, &mut config) };
        if let (Some(shown), Some(tls)) = (&self.shown, &mut self.config.listen.tls) {
            // Its files may have been read again since.
            tls.certificate = shown.certificate();
        }
        if config == self.config {
            return Report::Unchanged(notes);
        }
        let previous = self.upstreams.borrow().clone();
        let Built { gateway, upstreams } = match self.ground.build(&config, Some(&previous)) {
            Ok(built) => built,
            Err(error) => return self.refused("model_list".to_owned(), error.to_string()),
        };
        load_credentials(&upstreams.fleet).await;
        if let (Some(shown), Some(tls)) = (&self.shown, &config.listen.tls) {
            shown.show(tls, self.metrics());
        }
        self.in_force.store(Arc::new(gateway));
        for gone in previous.fleet.targets().filter(|target| !upstreams.fleet.has(&target.id)) {
            self.metrics().deployment_gone(gone.id.as_str());
        }
        self.upstreams.send_replace(upstreams);
        self.config = config;
        Report::Applied(notes)
    }

    fn refused(&self, path: String, what: String) -> Report {
        let name = match &self.given.source {
            Source::File(path) => path.display().to_string(),
            Source::Text { name, .. } => name.clone(),
            Source::Direct => "environment".to_owned(),
        };
        let remedy = "Correct it and reload again".to_owned();
        let finding = Finding { origin: Origin::WholeFile(name.into()), path, what, remedy };
        Report::Refused(Problems { problems: vec![finding], warnings: Vec::new() })
    }

    fn tell(&self, report: &Report) {
        match report {
            Report::Applied(notes) | Report::Unchanged(notes) => {
                for warning in &notes.warnings {
                    tracing::warn!("{warning}");
                }
                let restart_required = notes.restart_required.join(", ");
                tracing::info!(result = report.result(), restart_required, "the configuration was read again");
            }
            Report::Refused(problems) => {
                for problem in &problems.problems {
                    tracing::error!("the configuration cannot be applied, the one before stays in force: {problem}");
                }
            }
        }
        self.metrics().configuration_reloaded(report.result(), now_s());
    }

    fn metrics(&self) -> &Metrics {
        &self.ground.lasting.metrics
    }
}

/// Waits until the credentials of all deployments are there, or it is clear that they do not come. That is no reason to
/// stay with the configuration before, as it is none not to start; who keeps them fresh tells of it.
async fn load_credentials(fleet: &Fleet) {
    let loading = join_all(fleet.targets().map(|target| target.credentials.ready()));
    if tokio::time::timeout(CREDENTIALS_TIMEOUT, loading).await.is_err() {
        tracing::warn!("not all credentials were there within {} s", CREDENTIALS_TIMEOUT.as_secs());
    }
}

/// Seconds since 1970.
fn now_s() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    i64::try_from(elapsed).unwrap_or(i64::MAX)
}
