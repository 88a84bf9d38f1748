//! Counts requests, throttles those of one region, and authenticates one in so many as the ordinary mode would.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::http::request::Parts;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Canned;
use super::answers::{Template, template};
use crate::answer::error_answer;
use crate::operations::{self, Asked};
use crate::server::Options;
use crate::service::Shared;
use crate::sigv4;
use crate::text::hex;

/// Totals since the start. `requests` are those to models, `bytes_received` all bytes of all connections.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub requests: u64,
    pub streams: u64,
    pub verified: u64,
    pub bad_signatures: u64,
    pub throttled: u64,
    pub bytes_received: u64,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    streams: AtomicU64,
    verified: AtomicU64,
    bad_signatures: AtomicU64,
    throttled: AtomicU64,
    bytes_received: AtomicU64,
}

/// What stands before the answers.
pub struct Door {
    counts: Counts,
    verify_every: u64,
    throttle_region: Option<String>,
    ordinary: Shared,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Door {
    pub fn new(canned: &Canned) -> Self {
        let credentials = canned.credentials.clone();
        let options = Options { credentials, bearer_tokens: canned.bearer_tokens.clone(), ..Options::default() };
        Self {
            counts: Counts::default(),
            verify_every: canned.verify_every,
            throttle_region: canned.throttle_region.clone(),
            ordinary: Shared::new(options, None),
        }
    }

    /// The number of a new request, from 1.
    pub fn count_request(&self) -> u64 {
        self.counts.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn count_stream(&self) {
        self.counts.streams.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_bytes(&self, bytes: usize) {
        self.counts.bytes_received.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    /// Whether this request is one to authenticate.
    pub fn checks(&self, number: u64) -> bool {
        self.verify_every != 0 && number.is_multiple_of(self.verify_every)
    }

    /// Whether a request with this `Authorization` is refused; counts it.
    pub fn throttles(&self, authorization: &str) -> bool {
        let Some(region) = &self.throttle_region else { return false };
        let throttled = sigv4::parse(authorization).is_some_and(|presented| presented.region == region);
        self.counts.throttled.fetch_add(u64::from(throttled), Ordering::Relaxed);
        throttled
    }

    /// The refusal of a request that is not authentic. One whose head the ordinary mode could not read has no parts.
    pub fn refusal(&self, parts: Option<&Parts>, body: &[u8]) -> Option<Template> {
        let refused = match parts {
            Some(parts) => self.identify(parts, body),
            None => Some(("InvalidSignatureException", "The head cannot be read.".to_owned())),
        };
        let counter = if refused.is_some() { &self.counts.bad_signatures } else { &self.counts.verified };
        counter.fetch_add(1, Ordering::Relaxed);
        refused.map(|(error_type, message)| template(&error_answer(403, error_type, &message, None)))
    }

    fn identify(&self, parts: &Parts, body: &[u8]) -> Option<(&'static str, String)> {
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let host = header("host").unwrap_or_default();
        let scope = header("authorization").and_then(sigv4::parse);
        let operation = operations::recognise(&Asked {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            host,
            amz_target: None,
            scope_service: scope.map(|scope| scope.service),
            body,
        });
        let identity = self.ordinary.identify(parts, host, operation, &hex(&Sha256::digest(body)));
        identity.refused.map(|refused| (refused.error_type, refused.message))
    }

    pub fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        Totals {
            requests: read(&counts.requests),
            streams: read(&counts.streams),
            verified: read(&counts.verified),
            bad_signatures: read(&counts.bad_signatures),
            throttled: read(&counts.throttled),
            bytes_received: read(&counts.bytes_received),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_in_so_many_is_checked_and_with_0_none() {
        let door = |verify_every| Door::new(&Canned { verify_every, ..Canned::default() });
        let checked = |door: Door| (0..10).map(|_| door.count_request()).filter(|number| door.checks(*number)).count();
        assert_eq!((checked(door(0)), checked(door(1)), checked(door(3))), (0, 10, 3));
    }

    #[test]
    fn only_the_region_that_is_named_is_throttled() {
        let throttle_region = Some("us-west-2".to_owned());
        let door = Door::new(&Canned { throttle_region, ..Canned::default() });
        let authorization = |region: &str| {
            format!(
                "AWS4-HMAC-SHA256 Credential=A/20261122/{region}/bedrock/aws4_request, SignedHeaders=host, Signature=0"
            )
        };
        assert!(door.throttles(&authorization("us-west-2")));
        assert!(!door.throttles(&authorization("us-east-1")));
        assert!(!door.throttles("Bearer us-west-2"));
        assert_eq!(door.totals().throttled, 1);
    }
}
