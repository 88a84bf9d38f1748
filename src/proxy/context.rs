//! What belongs to one request while Pingora carries it from phase to phase.
//!
//! The record is for the operator; what the stages need of each other stands in [`Stage`], so that a phase can only
//! use what the phases before it have made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use uuid::Uuid;

use super::body::RequestBody;
use super::call::Call;
use super::gate::Place;
use super::replay::Slot;
use super::reserve::Booking;
use super::shared::Shared;
use super::stand_in::{StandIn, StandIns};
use super::watch::Watch;
use crate::aws::sigv4::ChunkVerifier;
use crate::deployment::attempts::Attempts;
use crate::deployment::fleet::{Group, Target};
use crate::deployment::live::Ongoing;
use crate::deployment::outcome::Outcome;
use crate::error::Failure;
use crate::telemetry::request_record::{AttemptRecord, RequestRecord};
use crate::usage::{RequestFacts, UsageReader};

/// One request.
pub struct RequestContext {
    pub(super) call_id: Uuid,
    pub(super) arrived: Instant,
    pub(super) record: RequestRecord,
    pub(super) stage: Stage,
    /// Set when the proxy itself has to answer.
    pub(super) failure: Option<Failure>,
    /// The way back to the real session while the replaying one is in its place.
    pub(super) slot: Option<Slot>,
    /// Whether the request counts as in flight.
    pub(super) counted: bool,
    /// Its place among the requests in flight, once it has one.
    pub(super) place: Option<Place>,
}

/// How far the request has come.
pub(super) enum Stage {
    Arrived,
    /// Known, allowed and read; goes to a deployment next.
    Admitted(Box<Admitted>),
    /// At a deployment.
    Dispatched(Box<Admitted>, Box<Attempt>),
    Finished,
}

/// What every attempt needs.
pub(super) struct Admitted {
    pub call_id: Uuid,
    pub call: Call,
    pub body: RequestBody,
    /// Verifies the frames of a bidirectional stream that is signed with a key pair.
    pub frames: Option<ChunkVerifier>,
    pub group: Arc<Group>,
    pub attempts: Attempts,
    /// Requests with the same key belong to the same deployment.
    pub affinity: Option<u64>,
    /// The attempt that comes next, where that has been decided.
    pub chosen: Option<Chosen>,
    /// Models that the request may go on to.
    pub stand_ins: StandIns,
    pub facts: RequestFacts,
    /// The id or ARN that was called, where it is not the deployment's.
    pub called: Option<String>,
    pub shared: Arc<Shared>,
    /// When the request had been read whole: the client's own slowness ends here.
    pub read: Instant,
    /// What reservations of this request are made of; `None` where nothing is counted.
    pub booking: Option<Booking>,
    /// Where the last attempt was, if it may have been billed although no answer came: its reservation is not for the next
    /// one.
    pub spoiled: Option<Arc<Target>>,
}

/// An attempt that has been decided on, and takes its place at the deployment already.
#[derive(Debug)]
pub(super) struct Chosen {
    pub index: usize,
    pub target: Arc<Target>,
    pub ongoing: Ongoing,
    /// How long to wait before it.
    pub pause: Duration,
    /// Over a new connection: a kept one had been closed.
    pub repeated: bool,
}

/// One attempt at one deployment.
pub(super) struct Attempt {
    pub index: usize,
    pub target: Arc<Target>,
    /// Of the target's host.
    pub address: SocketAddr,
    /// Its place at the deployment, until it is known what became of it.
    pub ongoing: Option<Ongoing>,
    pub auth: crate::credentials::UpstreamAuth,
    pub reader: Option<UsageReader>,
    pub watch: Watch,
    /// Of a bidirectional stream, whose prompt has no end before its answer begins.
    pub request_bytes_streamed: u64,
    /// Whether this attempt already is the repetition over a new connection.
    pub repeated: bool,
    pub sent: Option<Instant>,
    pub first_byte: Option<Instant>,
    pub status: Option<u16>,
    /// Tokens that it used, once they are known.
    pub tokens: Option<u64>,
}

impl RequestContext {
    pub(super) fn new() -> Self {
        let call_id = super::call_id::fresh();
        Self {
            call_id,
            arrived: Instant::now(),
            record: RequestRecord {
                time: Timestamp::now(),
                call_id: call_id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned(),
                ..RequestRecord::default()
            },
            stage: Stage::Arrived,
            failure: None,
            slot: None,
            counted: false,
            place: None,
        }
    }

    pub(super) fn admitted_mut(&mut self) -> Option<&mut Admitted> {
        match &mut self.stage {
            Stage::Admitted(admitted) | Stage::Dispatched(admitted, _) => Some(admitted),
            Stage::Arrived | Stage::Finished => None,
        }
    }

    pub(super) fn dispatched_mut(&mut self) -> Option<(&mut Admitted, &mut Attempt)> {
        match &mut self.stage {
            Stage::Dispatched(admitted, attempt) => Some((admitted, attempt)),
            Stage::Arrived | Stage::Admitted(_) | Stage::Finished => None,
        }
    }

    /// How many attempts there were, and at which deployment the last.
    pub(super) fn attempted(&self) -> Option<(usize, &str)> {
        let under_way = match &self.stage {
            Stage::Dispatched(_, attempt) => Some(attempt.target.id.as_str()),
            Stage::Arrived | Stage::Admitted(_) | Stage::Finished => None,
        };
        let last = under_way.or_else(|| self.record.attempts.last().map(|attempt| attempt.deployment.as_str()))?;
        Some((self.record.attempts.len() + usize::from(under_way.is_some()), last))
    }

    /// Ends the current attempt with a setback, or the whole attempt at picking one.
    pub(super) fn set_back(&mut self, deployment: &Target, status: Option<u16>, outcome: Outcome) {
        self.record.attempts.push(AttemptRecord {
            deployment: deployment.id.clone(),
            status,
            setback: Some(outcome.as_str()),
        });
        self.stage = match std::mem::replace(&mut self.stage, Stage::Finished) {
            Stage::Dispatched(admitted, _) => Stage::Admitted(admitted),
            other => other,
        };
    }
}

impl Admitted {
    /// Whether a further deployment may be tried.
    pub(super) fn may_go_on(&self) -> bool {
        self.attempts.may_go_on(self.group.targets.len()) || (self.attempts.are_left() && self.stand_ins.may_serve())
    }

    /// Goes on with the next model that stands in, if there is one, and gives the one that it leaves; `for_room` where the
    /// prompt was too long.
    pub(super) fn enter_stand_in(&mut self, for_room: bool) -> Option<StandIn> {
        if !self.attempts.are_left() {
            return None;
        }
        let next = self.stand_ins.next(for_room)?;
        Some(self.enter(next))
    }

    /// Goes on with a model of which nothing was asked yet. The one that it leaves.
    pub(super) fn enter(&mut self, next: StandIn) -> StandIn {
        let left = StandIn {
            group: std::mem::replace(&mut self.group, next.group),
            model_id: std::mem::replace(&mut self.called, next.model_id),
            facts: std::mem::replace(&mut self.facts, next.facts),
        };
        self.attempts.enter_next_model();
        self.shared.watch_context_window(self.stand_ins.may_have_room());
        left
    }

    /// Makes the present deployment the last one, because what goes there cannot be sent again.
    pub(super) fn stay(&mut self) {
        self.attempts.stay();
    }
}

/// Milliseconds with the precision a record shows.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The same as text, without needless zeros: `12`, `0.25`.
pub(super) fn milliseconds_text(duration: Duration) -> String {
    let micros = duration.as_nanos().saturating_add(500) / 1_000;
    let (whole, fraction) = (micros / 1_000, micros % 1_000);
    let mut text = String::with_capacity(16);
    text.push_str(itoa::Buffer::new().format(whole));
    if fraction > 0 {
        text.push('.');
        // A digit in front keeps the zeros that follow the point.
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(1_000 + fraction).get(1..).unwrap_or_default();
        text.push_str(digits.trim_end_matches('0'));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_written_as_they_are_recorded() {
        for nanos in
            [0, 499, 500, 999, 1_000, 10_000, 99_999, 250_000, 1_000_000, 1_020_499, 85_897_000, 3_600_000_000_600]
        {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(milliseconds_text(duration), milliseconds(duration).to_string(), "{nanos}");
        }
    }
}
