//! One JSON record per request, and the thread that writes them.
//!
//! A record holds identities, sizes, usage, cost and timings; never a key, a credential, a prompt or an answer. The
//! request path only hands the record over; when the disk cannot keep up, records are dropped and counted rather than
//! requests held up.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::metrics::usage_dimensions;
use crate::config::RequestLog;
use crate::types::ids::{DeploymentId, ModelId, ModelName, Region};
use crate::types::money::NanoUsd;
use crate::types::usage::Usage;

/// Records that may wait for the disk.
const QUEUE: usize = 16_384;

/// How long records gather before they are written together.
const GATHER: Duration = Duration::from_millis(10);

/// What happened to one request. Fields that do not apply are left out. What has to be formatted is by the thread that
/// writes it.
#[derive(Debug, Default, Serialize)]
pub struct RequestRecord {
    /// RFC 3339, UTC, when the request arrived.
    #[serde(serialize_with = "shown")]
    pub time: Timestamp,
    pub call_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws_request_id: Option<String>,
    /// Whose key: its alias, `master`, or `anonymous`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_user: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    pub method: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<ModelName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_id: Option<ModelId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    pub attempts: Vec<AttemptRecord>,
    pub status: u16,
    /// Who is at fault, for anything but a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'static str>,
    /// A fixed word: `body_too_large`, `upstream_status`, `exception_frame` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// AWS's name of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub request_bytes: usize,
    pub response_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageRecord>,
    /// `exact`, `partial` or `unknown`; absent where the operation reports no usage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_certainty: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_nano_usd: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown_if_any")]
    pub cost_usd: Option<NanoUsd>,
    /// Why there is no cost: `unknown_usage`, `unpriced_model` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpriced: Option<String>,
    /// From the request's first byte to the answer's last.
    pub duration_ms: f64,
    /// From the request's first byte to the answer's first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_first_byte_ms: Option<f64>,
    /// What this proxy added before the request was sent on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overhead_ms: Option<f64>,
}

/// One attempt at one deployment.
#[derive(Debug, Clone, Serialize)]
pub struct AttemptRecord {
    pub deployment: DeploymentId,
    /// The upstream's status, where it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why another deployment was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setback: Option<&'static str>,
}

/// [`Usage`] as the record shows it: only what is not zero, by name.
#[derive(Debug)]
pub struct UsageRecord(pub Usage);

impl Serialize for UsageRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let used = usage_dimensions(&self.0).into_iter().filter(|(_, amount)| *amount > 0);
        serializer.collect_map(used.collect::<BTreeMap<_, _>>())
    }
}

fn shown<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[expect(clippy::ref_option, reason = "the signature serde asks for")]
fn shown_if_any<S: Serializer>(value: &Option<impl fmt::Display>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

impl RequestRecord {
    /// Adds what an attempt cost.
    pub fn add_cost(&mut self, cost: NanoUsd) {
        let sum = NanoUsd(self.cost_nano_usd.unwrap_or_default()).saturating_add(cost);
        self.cost_nano_usd = Some(sum.0);
        self.cost_usd = Some(sum);
    }
}

/// Hands records to the thread that writes them.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: Option<Arc<Queue>>,
}

/// The thread behind a [`Recorder`]; stop it to have everything written.
#[derive(Debug)]
pub struct Writer {
    queue: Arc<Queue>,
    thread: JoinHandle<()>,
}

/// Records on their way to the disk. Only the first of a batch wakes the thread: waking it for each record costs more
/// than writing it.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    records: Vec<RequestRecord>,
    stopping: bool,
}

impl Recorder {
    /// Opens the log and starts its thread.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or no thread can be started.
    pub fn start(log: &RequestLog) -> io::Result<(Self, Option<Writer>)> {
        let out: Box<dyn Write + Send> = match log {
            RequestLog::Off => return Ok((Self { queue: None }, None)),
            RequestLog::Stdout => Box::new(io::stdout()),
            RequestLog::File(path) => Box::new(open(path)?),
        };
        let queue = Arc::new(Queue::default());
        let read = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name("request-log".into()).spawn(move || write_all(&read, out))?;
        Ok((Self { queue: Some(Arc::clone(&queue)) }, Some(Writer { queue, thread })))
    }

    /// Hands a record over. `false` when the queue was full and the record is lost.
    #[must_use]
    pub fn record(&self, record: RequestRecord) -> bool {
        let Some(queue) = &self.queue else { return true };
        let mut waiting = queue.lock();
        if waiting.records.len() >= QUEUE {
            return false;
        }
        let first = waiting.records.is_empty();
        waiting.records.push(record);
        drop(waiting);
        if first {
            queue.wake.notify_one();
        }
        true
    }
}

impl Writer {
    /// Writes what is queued and ends the thread.
    pub fn stop(self) {
        self.queue.lock().stopping = true;
        self.queue.wake.notify_one();
        if self.thread.join().is_err() {
            tracing::error!("the request log ended early");
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next records, in order; `true` when they are the last.
    fn next_batch(&self) -> (Vec<RequestRecord>, bool) {
        let idle = |waiting: &mut Waiting| waiting.records.is_empty() && !waiting.stopping;
        let waiting = self.wake.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let gathered = self.wake.wait_timeout_while(waiting, GATHER, |waiting| !waiting.stopping);
        let (mut waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut waiting.records), waiting.stopping)
    }
}

fn open(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write_all(queue: &Queue, out: Box<dyn Write + Send>) {
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    let mut failing = false;
    loop {
        let (records, last) = queue.next_batch();
        for record in &records {
            let written = serde_json::to_writer(&mut out, record).map_err(io::Error::from);
            report(written.and_then(|()| out.write_all(b"\n")), &mut failing);
        }
        flush(&mut out, &mut failing);
        if last {
            return;
        }
    }
}

fn flush(out: &mut impl Write, failing: &mut bool) {
    report(out.flush(), failing);
}

/// Says once that the log cannot be written, and once that it can be again.
fn report(result: io::Result<()>, failing: &mut bool) {
    match (result, *failing) {
        (Err(error), false) => {
            tracing::error!("request records cannot be written: {error}; free disk space or fix the path");
            *failing = true;
        }
        (Ok(()), true) => *failing = false,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::tokens::Tokens;

    #[test]
    fn a_record_is_one_line_whatever_a_client_sent() {
        let path = std::env::temp_dir().join(format!("dheera-record-{}", std::process::id()));
        let (recorder, writer) = Recorder::start(&RequestLog::File(path.clone())).unwrap();
        let mut record = RequestRecord {
            model_name: Some(ModelName::new("a\r\n{\"x\":1}")),
            status: 200,
            usage: Some(UsageRecord(Usage { output: Tokens(2), input: Tokens(1), ..Usage::default() })),
            ..Default::default()
        };
        record.add_cost(NanoUsd(5));
        assert!(recorder.record(record));
        writer.unwrap().stop();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["model_name"], "a\r\n{\"x\":1}");
        assert_eq!(value["status"], 200);
        assert_eq!(value["time"], "1970-01-01T00:00:00Z");
        assert_eq!((&value["cost_nano_usd"], &value["cost_usd"]), (&5.into(), &"0.000000005".into()));
        assert!(text.contains(r#""usage":{"input_tokens":1,"output_tokens":2}"#), "{text}");
    }
}
