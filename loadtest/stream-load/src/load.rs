//! The run: opens streams on their schedule, opens them again, tells how it goes, and ends in time.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::fault::Fault;
use crate::stats::{Stats, Watch, lock};
use crate::target::Target;
use crate::{http1, http2};

/// Before a stream that failed is opened again.
const PAUSE: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

/// When streams are opened and left.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub streams: u32,
    /// Over which the first ones are opened.
    pub ramp: Duration,
    /// For how long those that end are opened again.
    pub reopen_for: Duration,
    /// When all are left; without it they are read to their ends.
    pub cut_after: Option<Duration>,
    /// HTTP/1.1 without it.
    pub streams_per_h2_connection: Option<u32>,
}

/// What all streams share.
pub struct Load {
    target: Target,
    plan: Plan,
    stats: Mutex<Stats>,
}

/// How one stream after the other is opened.
enum Client {
    Http1(http1::Client),
    Http2(http2::Client),
}

impl Client {
    async fn stream(&mut self, load: &Load) -> Result<(), Fault> {
        match self {
            Self::Http1(client) => {
                client.connect(&load.target).await?;
                client.stream(&load.target, Watch::begin(&load.stats)).await
            }
            Self::Http2(client) => client.stream(&load.target, &load.stats).await,
        }
    }
}

impl Load {
    pub fn new(target: Target, plan: Plan) -> Self {
        Self { target, plan, stats: Mutex::new(Stats::new()) }
    }

    /// Runs the plan, or what of it there is before SIGINT or SIGTERM, and gives the report.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub async fn run(self) -> io::Result<Value> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let load = Arc::new(self);
        let begin = Instant::now();
        let mut streams = load.open(begin);
        let cut = load.plan.cut_after.map(|after| begin + after);
        let cut = async move {
            match cut {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let all = async { while streams.join_next().await.is_some() {} };
        tokio::select! {
            () = all => {}
            () = cut => {}
            () = load.tell(begin) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let elapsed = begin.elapsed();
        let mut report = lock(&load.stats).told(elapsed.as_secs_f64());
        report["streams"] = json!(load.plan.streams);
        Ok(report)
    }

    fn open(self: &Arc<Self>, begin: Instant) -> JoinSet<()> {
        let mut streams = JoinSet::new();
        let mut shared = http2::Client::default();
        for index in 0..self.plan.streams {
            let client = match self.plan.streams_per_h2_connection {
                Some(per_connection) => {
                    if index.is_multiple_of(per_connection) {
                        shared = http2::Client::default();
                    }
                    Client::Http2(shared.clone())
                }
                None => Client::Http1(http1::Client::default()),
            };
            let at = begin + self.plan.ramp * index / self.plan.streams;
            streams.spawn(Arc::clone(self).keep_open(client, at, begin + self.plan.reopen_for));
        }
        streams
    }

    /// Opens a stream at `at`, and again until `until`.
    async fn keep_open(self: Arc<Self>, mut client: Client, at: Instant, until: Instant) {
        sleep_until(at).await;
        loop {
            let outcome = client.stream(&self).await;
            let failed = outcome.is_err();
            lock(&self.stats).count(outcome);
            if Instant::now() >= until {
                return;
            }
            if failed {
                sleep(PAUSE).await;
            }
        }
    }

    /// Tells once a second how it goes; without end.
    async fn tell(&self, begin: Instant) {
        let mut ticks = interval(SECOND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut before = (0, 0);
        loop {
            ticks.tick().await;
            let line = {
                let stats = lock(&self.stats);
                let (frames, finished) = (stats.frames - before.0, stats.finished - before.1);
                before = (stats.frames, stats.finished);
                format!(
                    "{:4} s: {} open, {frames} frames, {finished} finished, {} failed in all",
                    begin.elapsed().as_secs(),
                    stats.open,
                    stats.failed()
                )
            };
            // The run goes on if stderr is closed.
            drop(writeln!(io::stderr(), "{line}"));
        }
    }
}
