//! The connection to Redis: made when it is first needed, shared by all requests, made anew when it is lost.
//!
//! A command never waits for a server that is away: while there is no connection it fails within [`PATIENCE`], and at
//! once while attempts are spaced out. Reconnecting runs beside the commands. Which server that is, `topology` finds out.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use redis::{Cmd, RedisError, Value};
use tokio::sync::watch;

use super::fault::{Fault, Remedies};
use super::functions::{self, Library, Mode};
use super::keys::Keys;
use super::topology::{Link, Topology};
use crate::config;
use crate::store::StoreError;

/// How long a command waits for a connection that is being made.
const PATIENCE: Duration = Duration::from_millis(250);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A connection and how to call functions on it.
pub(super) struct Live {
    generation: u64,
    link: Link,
    mode: Mode,
}

/// What is known of attempts to connect.
struct Attempts {
    running: bool,
    failures: u32,
    retry_at: Option<Instant>,
    last_error: Option<StoreError>,
    generation: u64,
}

pub(super) struct Connection {
    pub(super) keys: Keys,
    topology: Topology,
    library: Library,
    remedies: Remedies,
    connect_timeout: Duration,
    timeout: Duration,
    live: ArcSwapOption<Live>,
    attempts: Mutex<Attempts>,
    /// Counts attempts that ended.
    ended: watch::Sender<u64>,
    scripts_only: AtomicBool,
    born: Instant,
    /// Milliseconds after `born` of the last answer.
    answered_ms: AtomicU64,
    clock_offset_ms: AtomicI64,
    clock_ms: AtomicU64,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("topology", &self.topology).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(config: &config::Redis, scripts_only: bool) -> Result<Self, StoreError> {
        let keys = Keys::new(&config.namespace);
        Ok(Self {
            remedies: Remedies::new(config, &keys),
            topology: Topology::new(config, keys.slot())?,
            keys,
            library: Library::new(),
            connect_timeout: config.connect_timeout,
            timeout: config.timeout,
            live: ArcSwapOption::empty(),
            attempts: Mutex::new(Attempts {
                running: false,
                failures: 0,
                retry_at: None,
                last_error: None,
                generation: 0,
            }),
            ended: watch::Sender::new(0),
            scripts_only: AtomicBool::new(scripts_only),
            born: Instant::now(),
            answered_ms: AtomicU64::new(0),
            clock_offset_ms: AtomicI64::new(0),
            clock_ms: AtomicU64::new(0),
        })
    }

    pub(super) fn clock_offset_ms(&self) -> i64 {
        self.clock_offset_ms.load(Ordering::Relaxed)
    }

    pub(super) fn clock_ms(&self) -> u64 {
        self.clock_ms.load(Ordering::Relaxed)
    }

    /// Calls a function; `arguments` adds its own. The answer without the time it begins with. `Repeat::Yes`: a command
    /// that may have been carried out is sent once more when its connection broke.
    pub(super) async fn call(
        self: &Arc<Self>,
        repeat: Repeat,
        function: &str,
        arguments: impl Fn(&mut Cmd) + Send + Sync,
    ) -> Result<Vec<Value>, StoreError> {
        let answer = self
            .run(repeat, |live| {
                let mut command = self.library.call(&live.mode, function, &self.keys);
                arguments(&mut command);
                command
            })
            .await?;
        let Value::Array(mut items) = answer else {
            return Err(StoreError::Failed(format!("Redis gave an unexpected answer to {function}")));
        };
        match items.first() {
            Some(Value::Int(now)) => {
                self.see_clock(*now);
                items.remove(0);
                Ok(items)
            }
            _ => Err(StoreError::Failed(format!("Redis gave an unexpected answer to {function}"))),
        }
    }

    /// Sends a plain command that reads.
    pub(super) async fn query<T: redis::FromRedisValue>(self: &Arc<Self>, command: Cmd) -> Result<T, StoreError> {
        let answer = self.run(Repeat::Yes, |_| command.clone()).await?;
        redis::from_redis_value(answer).map_err(|_| StoreError::Failed("Redis gave an unexpected answer".to_owned()))
    }

    async fn run(
        self: &Arc<Self>,
        repeat: Repeat,
        command: impl Fn(&Live) -> Cmd + Send + Sync,
    ) -> Result<Value, StoreError> {
        let mut repeats = u8::from(repeat == Repeat::Yes);
        let mut reloads = 2u8;
        loop {
            let live = self.live().await?;
            match self.send(&live, command(&live)).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Late) => return Err(self.late()),
                Err(Failure::Error(error)) if reloads > 0 && self.must_load(&live, &error) => {
                    reloads -= 1;
                    self.reload(&live).await?;
                }
                Err(Failure::Error(error)) => {
                    let fault = self.remedies.judge(&error);
                    if fault.reconnect {
                        self.lose(&live);
                    }
                    if fault.broken && repeats > 0 {
                        repeats -= 1;
                        continue;
                    }
                    return Err(fault.error);
                }
            }
        }
    }

    async fn send(&self, live: &Arc<Live>, command: Cmd) -> Result<Value, Failure> {
        let sent_ms = self.elapsed_ms();
        let Ok(answer) = tokio::time::timeout(self.timeout, live.link.send(command)).await else {
            // Nothing at all came meanwhile: the peer may be gone without a word.
            if self.answered_ms.load(Ordering::Relaxed) <= sent_ms {
                self.lose(live);
            }
            return Err(Failure::Late);
        };
        if answer.as_ref().map_or_else(|error| error.code().is_some(), |_| true) {
            self.answered_ms.fetch_max(self.elapsed_ms(), Ordering::Relaxed);
        }
        answer.map_err(Failure::Error)
    }

    fn late(&self) -> StoreError {
        StoreError::Unavailable(format!("Redis did not answer within {} ms", self.timeout.as_millis()))
    }

    fn must_load(&self, live: &Live, error: &RedisError) -> bool {
        functions::is_not_loaded(error)
            || (live.mode == Mode::Functions
                && functions::are_functions_missing(error)
                && !self.scripts_only.swap(true, Ordering::Relaxed))
    }

    /// Gives Redis the functions (again) and goes on with the same connection.
    async fn reload(self: &Arc<Self>, live: &Arc<Live>) -> Result<(), StoreError> {
        let mode = match tokio::time::timeout(self.timeout, self.load(&live.link)).await {
            Ok(Ok(mode)) => mode,
            Ok(Err(error)) => {
                let fault = self.remedies.judge(&error);
                if fault.reconnect {
                    self.lose(live);
                }
                return Err(fault.error);
            }
            Err(_) => return Err(self.late()),
        };
        let mut attempts = self.lock();
        if self.live.load().as_ref().is_some_and(|current| current.generation == live.generation) {
            attempts.generation += 1;
            let (generation, link) = (attempts.generation, live.link.clone());
            self.live.store(Some(Arc::new(Live { generation, link, mode })));
        }
        Ok(())
    }

    async fn load(&self, link: &Link) -> Result<Mode, RedisError> {
        if !self.scripts_only.load(Ordering::Relaxed) {
            match link.send(self.library.load_functions()).await {
                Ok(_) => return Ok(Mode::Functions),
                Err(error) if functions::is_already_loaded(&error) => return Ok(Mode::Functions),
                Err(error) if functions::are_functions_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        redis::from_redis_value(link.send(self.library.load_script()).await?).map(Mode::Script).map_err(Into::into)
    }

    /// The connection, or why there is none.
    async fn live(self: &Arc<Self>) -> Result<Arc<Live>, StoreError> {
        if let Some(live) = self.live.load_full() {
            return Ok(live);
        }
        let mut ended = self.ended.subscribe();
        self.attempt()?;
        let waited = tokio::time::timeout(PATIENCE, ended.changed()).await;
        self.live.load_full().ok_or_else(|| {
            let known = if waited.is_ok() { self.lock().last_error.clone() } else { None };
            known.unwrap_or_else(|| StoreError::Unavailable("Redis is being connected to".to_owned()))
        })
    }

    /// Begins an attempt to connect unless one runs; the last error while it is too early for another.
    fn attempt(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut attempts = self.lock();
        if attempts.running {
            return Ok(());
        }
        if self.live.load().is_some() {
            self.ended.send_modify(|count| *count += 1);
            return Ok(());
        }
        if attempts.retry_at.is_some_and(|at| Instant::now() < at)
            && let Some(error) = attempts.last_error.clone()
        {
            return Err(error);
        }
        attempts.running = true;
        let this = Arc::clone(self);
        // If the runtime stops, the guard notes that the attempt has ended.
        tokio::spawn(async move {
            let mut running = Running { connection: &this, outcome: None };
            running.outcome = Some(Box::pin(this.connect()).await);
        });
        Ok(())
    }

    async fn connect(&self) -> Result<(Link, Mode), StoreError> {
        let making = async {
            let link = self.topology.connect().await.map_err(|error| self.remedies.judge(&error))?;
            let greeting = link.greet().await.map_err(|error| self.remedies.judge(&error))?;
            self.remedies.check(&greeting)?;
            let mode = self.load(&link).await.map_err(|error| self.remedies.judge(&error))?;
            Ok::<_, Fault>((link, mode))
        };
        match tokio::time::timeout(self.connect_timeout, making).await {
            Ok(made) => made.map_err(|fault| fault.error),
            Err(_) => Err(StoreError::Unavailable(format!(
                "{} could not be connected to within {} ms",
                self.topology,
                self.connect_timeout.as_millis()
            ))),
        }
    }

    fn end_attempt(&self, outcome: Option<Result<(Link, Mode), StoreError>>) {
        let mut attempts = self.lock();
        attempts.running = false;
        match outcome {
            Some(Ok((link, mode))) => {
                log::info!("connected to Redis: {}", self.topology);
                attempts.generation += 1;
                attempts.failures = 0;
                attempts.retry_at = None;
                attempts.last_error = None;
                let generation = attempts.generation;
                self.live.store(Some(Arc::new(Live { generation, link, mode })));
            }
            Some(Err(error)) => {
                if attempts.last_error.as_ref() != Some(&error) {
                    log::warn!("Redis ({}): {error}", self.topology);
                }
                let pause = BACKOFF_FIRST.saturating_mul(1 << attempts.failures.min(6)).min(BACKOFF_MAX);
                attempts.failures = attempts.failures.saturating_add(1);
                attempts.retry_at = Some(Instant::now() + pause * fastrand::u32(500..=1000) / 1000);
                attempts.last_error = Some(error);
            }
            None => {}
        }
        drop(attempts);
        self.ended.send_modify(|count| *count += 1);
    }

    /// Gives a connection up, unless that has been done.
    fn lose(&self, live: &Live) {
        let _attempts = self.lock();
        if self.live.load().as_ref().is_some_and(|current| current.generation == live.generation) {
            log::warn!("the connection to Redis was lost");
            self.live.store(None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn see_clock(&self, now: i64) {
        let here = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let here = i64::try_from(here).unwrap_or(i64::MAX);
        self.clock_offset_ms.store(now.saturating_sub(here), Ordering::Relaxed);
        self.clock_ms.store(now.unsigned_abs(), Ordering::Relaxed);
    }
}

/// Whether a command may be carried out twice without harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Yes,
    No,
}

enum Failure {
    Error(RedisError),
    Late,
}

/// Notes the end of an attempt however it ends.
struct Running<'a> {
    connection: &'a Connection,
    outcome: Option<Result<(Link, Mode), StoreError>>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.connection.end_attempt(self.outcome.take());
    }
}
