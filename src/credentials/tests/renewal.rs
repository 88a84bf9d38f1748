//! When a source loads, and when it does not. The clock of the runtime stands still and is moved on by sleeping
//! tasks; the wall clock of the source follows it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::Instant;

use super::*;
use crate::credentials::cached::Clock;

/// Gives credentials that last `lifetime`, numbered by load, after `latency`.
struct Issuer {
    loads: AtomicUsize,
    moments: Mutex<Vec<Duration>>,
    started: Instant,
    lifetime: Option<Duration>,
    latency: Duration,
    failing: AtomicBool,
}

struct IssuerHandle(Arc<Issuer>);

#[async_trait]
impl Provider for IssuerHandle {
    async fn load(&self) -> Result<Loaded, CredentialError> {
        let issuer = &self.0;
        let number = issuer.loads.fetch_add(1, Ordering::SeqCst) + 1;
        issuer.moments.lock().unwrap().push(issuer.started.elapsed());
        tokio::time::sleep(issuer.latency).await;
        if issuer.failing.load(Ordering::SeqCst) {
            return Err(CredentialError::refused(&"test".into(), "not today"));
        }
        let credentials = SigningCredentials {
            access_key_id: number.to_string(),
            secret_access_key: Secret::new("canary"),
            session_token: None,
        };
        let now = SystemTime::UNIX_EPOCH + issuer.started.elapsed();
        let expires_at = issuer.lifetime.map(|lifetime| now + lifetime);
        Ok(Loaded { auth: UpstreamAuth::SigV4(Arc::new(credentials)), expires_at })
    }
}

fn source(lifetime: Option<Duration>, latency: Duration) -> (Arc<Source>, Arc<Issuer>) {
    let started = Instant::now();
    let issuer = Arc::new(Issuer {
        loads: AtomicUsize::new(0),
        moments: Mutex::new(Vec::new()),
        started,
        lifetime,
        latency,
        failing: AtomicBool::new(false),
    });
    let clock: Clock = Box::new(move || SystemTime::UNIX_EPOCH + started.elapsed());
    let provider = Box::new(IssuerHandle(Arc::clone(&issuer)));
    (Arc::new(Source::with_clock("test".into(), Some(provider), clock)), issuer)
}

fn keep_fresh(source: &Arc<Source>) -> tokio::task::JoinHandle<()> {
    let source = Arc::clone(source);
    tokio::spawn(async move { source.keep_fresh().await })
}

fn id(auth: Result<UpstreamAuth, CredentialError>) -> String {
    signing(auth.unwrap()).access_key_id.clone()
}

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test(start_paused = true)]
async fn however_many_wait_one_load_runs() {
    let (source, issuer) = source(Some(HOUR), Duration::from_millis(100));
    assert_eq!(source.current().unwrap_err().kind(), "not_loaded");
    let mut waiting = JoinSet::new();
    for _ in 0..100 {
        let source = Arc::clone(&source);
        waiting.spawn(async move { id(source.ready().await) });
    }
    assert!(waiting.join_all().await.iter().all(|id| id == "1"));
    assert_eq!(issuer.loads.load(Ordering::SeqCst), 1);
    assert_eq!(id(source.current()), "1");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_and_not_repeated_before_its_backoff_is_over() {
    let (source, issuer) = source(Some(HOUR), Duration::from_millis(100));
    issuer.failing.store(true, Ordering::SeqCst);
    let mut waiting = JoinSet::new();
    for _ in 0..100 {
        let source = Arc::clone(&source);
        waiting.spawn(async move { source.ready().await.unwrap_err().kind() });
    }
    assert!(waiting.join_all().await.iter().all(|kind| *kind == "refused"));
    assert_eq!(issuer.loads.load(Ordering::SeqCst), 1);
    // A client that asks every 10 ms for two minutes: loads start after 1, 2, 4, 8, 16, 30, 30 s of backoff.
    for _ in 0..12_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        source.ready().await.unwrap_err();
    }
    assert_eq!(issuer.loads.load(Ordering::SeqCst), 8);
    issuer.failing.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(id(source.ready().await), "9");
    assert_eq!(source.status().last_error, None);
}

#[tokio::test(start_paused = true)]
async fn credentials_are_renewed_five_minutes_or_a_fifth_before_they_expire() {
    for (lifetime, due) in [(HOUR, 55 * 60), (Duration::from_mins(15), 12 * 60)] {
        let (source, issuer) = source(Some(lifetime), Duration::ZERO);
        let task = keep_fresh(&source);
        source.ready().await.unwrap();
        tokio::time::sleep(Duration::from_secs(due - 1)).await;
        assert_eq!(id(source.current()), "1");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(id(source.current()), "2");
        // A day later they have never been expired.
        for _ in 0..24 * 60 {
            tokio::time::sleep(Duration::from_mins(1)).await;
            source.current().unwrap();
        }
        let loads = u64::try_from(issuer.loads.load(Ordering::SeqCst)).unwrap();
        assert!(loads.abs_diff(86_400 / due) <= 3, "{loads}");
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_keeps_the_old_credentials_until_they_expire() {
    let (source, issuer) = source(Some(HOUR), Duration::ZERO);
    let task = keep_fresh(&source);
    source.ready().await.unwrap();
    issuer.failing.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_mins(59)).await;
    assert_eq!(id(source.current()), "1");
    assert_eq!(source.status().last_error.unwrap().kind(), "refused");
    tokio::time::sleep(Duration::from_secs(61)).await;
    let error = source.current().unwrap_err();
    assert_eq!(error.kind(), "expired");
    assert!(error.to_string().contains("not today"), "{error}");
    // Backoff stays at half a minute: 5 loads by 31 s after the first, then two a minute.
    assert!(issuer.loads.load(Ordering::SeqCst) <= 18, "{:?}", issuer.moments.lock().unwrap());
    issuer.failing.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(31)).await;
    source.current().unwrap();
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_and_what_never_expires_is_not_loaded_again() {
    let (unused, unused_issuer) = source(Some(HOUR), Duration::ZERO);
    let (lasting, lasting_issuer) = source(None, Duration::ZERO);
    let tasks = [keep_fresh(&unused), keep_fresh(&lasting)];
    lasting.ready().await.unwrap();
    tokio::time::sleep(HOUR * 100).await;
    lasting.ready().await.unwrap();
    assert_eq!(unused_issuer.loads.load(Ordering::SeqCst), 0);
    assert_eq!(lasting_issuer.loads.load(Ordering::SeqCst), 1);
    assert_eq!(lasting.status().expires_at, None);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_are_dead_on_arrival_are_a_failure() {
    let (source, _) = source(Some(Duration::ZERO), Duration::ZERO);
    assert_eq!(source.ready().await.unwrap_err().kind(), "expired");
    assert!(!source.status().loaded);
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_of_seconds_does_not_make_a_storm_of_loads() {
    let (source, issuer) = source(Some(Duration::from_secs(6)), Duration::ZERO);
    let task = keep_fresh(&source);
    source.ready().await.unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(issuer.loads.load(Ordering::SeqCst) <= 13);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_is_given_up() {
    let (source, _) = source(Some(HOUR), HOUR);
    let error = source.ready().await.unwrap_err();
    assert_eq!(error.kind(), "unreachable");
    assert!(error.to_string().contains("30 s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_loop_ends_with_the_shutdown() {
    for specs in [vec![], vec![keys(None), Credentials::Profile("x".to_owned())]] {
        let store = Arc::new(CredentialStore::new(specs, options(), None));
        let started = Instant::now();
        store.refresh_loop(tokio::time::sleep(Duration::from_secs(7))).await;
        assert_eq!(started.elapsed().as_secs(), 7);
    }
}
