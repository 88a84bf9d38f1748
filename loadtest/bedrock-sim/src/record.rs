//! What came in, for tests to look at: a ring of the newest requests and counters over all. A request is kept as the
//! HTTP library parsed it and only written out when somebody asks, so that recording costs little under load.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::{HeaderMap, Method, Uri};
use serde::Serialize;

use crate::concurrency::Concurrency;
use crate::playback::Progress;

/// Bytes of a body that are kept.
pub const BODY_BYTES_KEPT: usize = 64 * 1024;

/// One request, as it is told to tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    pub number: u64,
    pub request_id: String,
    /// The service and operation that were recognised; `None` for unknown paths.
    pub service: Option<&'static str>,
    pub operation: Option<&'static str>,
    pub model: Option<String>,
    pub http_version: String,
    pub method: String,
    /// Raw.
    pub path: String,
    pub query: String,
    /// The Host header or HTTP/2 authority.
    pub host: String,
    /// In order of arrival, duplicates included, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body_len: u64,
    pub body_sha256: String,
    /// The first 64 KiB, if bodies are kept: as text where it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    pub auth: Auth,
    pub violations: Vec<String>,
    pub fault: Option<&'static str>,
    pub status: u16,
    pub bytes_sent: u64,
    /// The whole answer was handed to the connection.
    pub finished: bool,
}

/// Who signed, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Auth {
    pub ok: bool,
    /// `sigv4`, `bearer` or `none`.
    pub kind: &'static str,
    pub access_key_id: Option<String>,
    pub region: String,
    /// The service of the credential scope.
    pub service: Option<String>,
    pub error: Option<String>,
}

/// Totals since the start or the last clearing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counters {
    pub connections: u64,
    pub connections_refused: u64,
    pub requests: u64,
    pub authentication_failures: u64,
    /// Requests with at least one violation.
    pub violations: u64,
    pub unknown_operations: u64,
    pub faults: u64,
    /// GetInferenceProfile, whatever the answer.
    pub profile_lookups: u64,
}

/// A request as it is kept.
pub struct Entry {
    pub request_id: String,
    pub service: Option<&'static str>,
    pub operation: Option<&'static str>,
    pub model: Option<String>,
    pub http2: bool,
    pub method: Method,
    pub uri: Uri,
    pub host: String,
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
    pub body_len: u64,
    pub body_sha256: String,
    pub auth: Auth,
    pub violations: Vec<String>,
    pub fault: Option<&'static str>,
    pub status: u16,
    pub progress: Arc<Progress>,
}

/// The counters as they are counted.
#[derive(Default)]
pub struct Counts {
    pub connections: AtomicU64,
    pub connections_refused: AtomicU64,
    pub requests: AtomicU64,
    pub authentication_failures: AtomicU64,
    pub violations: AtomicU64,
    pub unknown_operations: AtomicU64,
    pub faults: AtomicU64,
    pub profile_lookups: AtomicU64,
}

/// The ring and the counters.
pub struct Recorder {
    entries: Mutex<VecDeque<(u64, Entry)>>,
    entries_max: usize,
    next: AtomicU64,
    pub counts: Counts,
    pub concurrency: Concurrency,
}

impl Recorder {
    pub fn new(entries_max: usize) -> Self {
        Self {
            entries: Mutex::default(),
            entries_max,
            next: AtomicU64::new(1),
            counts: Counts::default(),
            concurrency: Concurrency::default(),
        }
    }

    /// Whether requests are kept at all.
    pub fn keeps(&self) -> bool {
        self.entries_max > 0
    }

    pub fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub fn push(&self, number: u64, entry: Entry) {
        if let Ok(mut entries) = self.entries.lock()
            && self.entries_max > 0
        {
            if entries.len() >= self.entries_max {
                entries.pop_front();
            }
            entries.push_back((number, entry));
        }
    }

    /// The newest requests, oldest first.
    pub fn last(&self, count: usize) -> Vec<Record> {
        let Ok(entries) = self.entries.lock() else { return Vec::new() };
        let from = entries.len().saturating_sub(count);
        entries.iter().skip(from).map(|(number, entry)| entry.tell(*number)).collect()
    }

    pub fn clear(&self) {
        if let Ok(mut entries) = self.entries.lock() {
            entries.clear();
        }
        self.counts.clear();
        self.concurrency.clear();
    }
}

impl Entry {
    fn tell(&self, number: u64) -> Record {
        let text = self.body.as_ref().map(|body| std::str::from_utf8(body));
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        Record {
            number,
            request_id: self.request_id.clone(),
            service: self.service,
            operation: self.operation,
            model: self.model.clone(),
            http_version: if self.http2 { "HTTP/2" } else { "HTTP/1" }.to_owned(),
            method: self.method.to_string(),
            path: self.uri.path().to_owned(),
            query: self.uri.query().unwrap_or_default().to_owned(),
            host: self.host.clone(),
            headers: headers.collect(),
            body_len: self.body_len,
            body_sha256: self.body_sha256.clone(),
            body: text.and_then(Result::ok).map(str::to_owned),
            body_base64: match (text, &self.body) {
                (Some(Err(_)), Some(body)) => Some(BASE64_STANDARD.encode(body)),
                _ => None,
            },
            auth: self.auth.clone(),
            violations: self.violations.clone(),
            fault: self.fault,
            status: self.status,
            bytes_sent: self.progress.bytes_sent.load(Ordering::Relaxed),
            finished: self.progress.finished.load(Ordering::Relaxed),
        }
    }
}

impl Counts {
    fn all(&self) -> [&AtomicU64; 8] {
        let Self {
            connections,
            connections_refused,
            requests,
            authentication_failures,
            violations,
            unknown_operations,
            faults,
            profile_lookups,
        } = self;
        [
            connections,
            connections_refused,
            requests,
            authentication_failures,
            violations,
            unknown_operations,
            faults,
            profile_lookups,
        ]
    }

    pub fn read(&self) -> Counters {
        let [
            connections,
            connections_refused,
            requests,
            authentication_failures,
            violations,
            unknown_operations,
            faults,
            profile_lookups,
        ] = self.all().map(|count| count.load(Ordering::Relaxed));
        Counters {
            connections,
            connections_refused,
            requests,
            authentication_failures,
            violations,
            unknown_operations,
            faults,
            profile_lookups,
        }
    }

    fn clear(&self) {
        for count in self.all() {
            count.store(0, Ordering::Relaxed);
        }
    }
}

/// Counts one more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
