//! `/health/*`, `/metrics`, `/v1/models` and `/model/info`.
//!
//! Liveness and readiness are open, because orchestrators send no key; everything that tells of the configuration
//! needs the master key when there is one. A virtual key may list the models it can call. Nothing here calls a model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::readiness::{Phase, Readiness, can_sign};
use crate::aws::error_body::{ErrorResponse, ErrorType};
use crate::deployment::fleet::{Fleet, Target};
use crate::deployment::host::{AddressReport, Host, PastFailure};
use crate::deployment::live::LastError;
use crate::deployment::profiles::Profiles;
use crate::deployment::vitals::State;
use crate::keys::authenticate::{Authenticator, Caller, Denied, Identity, Presented};
use crate::keys::policy;
use crate::price::book::{PriceBook, Query, Surface};
use crate::telemetry::metrics::Metrics;
use crate::types::ids::{ModelId, ModelName};

/// What a virtual key is told that asks for more than its own affairs.
const MASTER_ONLY: &str =
    "This page needs the master key. A virtual key may read /v1/models and, about itself, /key/info.";

/// Answers the proxy's own paths.
pub struct Status {
    pub authenticator: Arc<Authenticator>,
    pub fleet: Arc<Fleet>,
    pub profiles: Arc<Profiles>,
    pub price_book: Arc<PriceBook>,
    pub metrics: Arc<Metrics>,
    pub require_auth_for_metrics: bool,
    pub readiness: Arc<Readiness>,
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Status {
    /// Whether a path is one of these.
    #[must_use]
    pub fn owns(path: &str) -> bool {
        Page::of(path).is_some()
    }

    /// Answers a request, or `None` when the path is not one of these. `presented` is what
    /// [`Authenticator::present`] made of its headers, `now_ms` the store's time in Unix milliseconds.
    pub async fn answer(
        &self,
        method: &str,
        path: &str,
        presented: Result<Presented, Denied>,
        now_ms: u64,
    ) -> Option<Answer> {
        let page = Page::of(path)?;
        if !matches!(method, "GET" | "HEAD") {
            return Some(refused(
                &ErrorResponse::new(ErrorType::Validation, "This path answers GET only.").status(405),
                &[("allow", "GET, HEAD".to_owned())],
            ));
        }
        let open = match page {
            Page::Liveness => return Some(json_answer(200, &json!("I'm alive!"))),
            Page::Readiness => return Some(self.readiness()),
            Page::Metrics => !self.require_auth_for_metrics,
            Page::Health | Page::Models | Page::ModelInfo => false,
        };
        if open {
            return Some(self.metrics());
        }
        let caller = match presented {
            Ok(presented) => self.authenticator.prove(presented, now_ms).await.and_then(Identity::without_signature),
            Err(denied) => Err(denied),
        };
        Some(match (caller, page) {
            (Err(denied), _) => denied_answer(&denied),
            (Ok(caller), Page::Models) => self.models(&caller),
            (Ok(Caller::Key(_)), _) => refused(&ErrorResponse::new(ErrorType::AccessDenied, MASTER_ONLY), &[]),
            (Ok(_), Page::Metrics) => self.metrics(),
            (Ok(_), Page::ModelInfo) => self.model_info(),
            (Ok(_), Page::Health | Page::Liveness | Page::Readiness) => self.health(),
        })
    }

    fn readiness(&self) -> Answer {
        let reasons = self.readiness.reasons(can_sign(&self.fleet));
        if !reasons.is_empty() {
            return json_answer(503, &json!({ "status": self.word(), "reasons": reasons }));
        }
        json_answer(200, &json!({ "status": "healthy", "version": env!("CARGO_PKG_VERSION") }))
    }

    /// The state in a word.
    fn word(&self) -> &'static str {
        match self.readiness.phase() {
            Phase::Starting => "starting",
            Phase::Stopping => "stopping",
            Phase::Succeeded => "handed over",
            Phase::Serving if self.readiness.reasons(can_sign(&self.fleet)).is_empty() => "healthy",
            Phase::Serving => "not ready",
        }
    }

    fn health(&self) -> Answer {
        let now = Instant::now();
        let deployments: Vec<Value> = self
            .targets()
            .map(|target| {
                let mut entry = describe(target);
                if let Some(fields) = entry.as_object_mut() {
                    fields.insert("credentials".into(), credentials(target));
                    fields.extend(condition(target, now));
                }
                entry
            })
            .collect();
        json_answer(
            200,
            &json!({
                "status": self.word(),
                "version": env!("CARGO_PKG_VERSION"),
                "requests_in_flight": self.metrics.in_flight().get(),
                "deployments": deployments,
                "endpoints": self.fleet.hosts().iter().map(|host| endpoint(host, now)).collect::<Vec<_>>(),
            }),
        )
    }

    fn metrics(&self) -> Answer {
        let now = Instant::now();
        for host in self.fleet.hosts() {
            self.metrics.endpoint_state(&host.authority, host.health.state(now).number());
        }
        for target in self.targets() {
            let shown = target.live.show(now);
            let latencies_us = [shown.streams_us, shown.whole_us];
            self.metrics.deployment(target.id.as_str(), shown.state.number(), shown.in_flight, latencies_us);
            self.metrics.credentials_ready(target.id.as_str(), target.credentials.current().is_ok());
        }
        match self.metrics.encode() {
            Ok(body) => Answer {
                status: 200,
                headers: vec![("content-type", "text/plain; version=0.0.4; charset=utf-8".to_owned())],
                body,
            },
            Err(error) => {
                tracing::error!("metrics cannot be encoded: {error}");
                refused(&ErrorResponse::new(ErrorType::InternalServer, "Metrics cannot be shown; see the log."), &[])
            }
        }
    }

    /// OpenAI's form of a model list, which most tools read: the models that the caller may call.
    fn models(&self, caller: &Caller) -> Answer {
        let data: Vec<Value> = self
            .fleet
            .groups()
            .into_iter()
            .filter(|group| policy::lists_model(caller, group.model_name.as_str()))
            .map(|group| json!({ "id": group.model_name.as_str(), "object": "model", "owned_by": "bedrock" }))
            .collect();
        json_answer(200, &json!({ "object": "list", "data": data }))
    }

    fn model_info(&self) -> Answer {
        let data: Vec<Value> = self
            .targets()
            .map(|target| {
                let mut entry = describe(target);
                if let Some(fields) = entry.as_object_mut() {
                    fields.insert("price".into(), self.price(target));
                }
                entry
            })
            .collect();
        json_answer(200, &json!({ "data": data }))
    }

    /// Where the price comes from, of a profile once its model is known.
    fn price(&self, target: &Arc<Target>) -> Value {
        let target = self.profiles.known(target);
        let found = self.price_book.find(&Query {
            model_id: target.model_id.as_ref().map_or("", ModelId::as_str),
            region: target.region.as_str(),
            surface: Surface::Runtime,
            base_model: target.base_model.as_ref().map(ModelId::as_str),
            invoked_model: None,
        });
        match (found, &target.price) {
            (_, Some(_)) => json!("config"),
            (Some(_), None) => json!("price book"),
            (None, None) => Value::Null,
        }
    }

    fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.fleet.groups().into_iter().flat_map(|group| &group.targets)
    }
}

/// The pages, with the names users of other gateways know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Liveness,
    Readiness,
    Health,
    Metrics,
    Models,
    ModelInfo,
}

impl Page {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/health/liveliness" | "/health/liveness" => Self::Liveness,
            "/health/readiness" => Self::Readiness,
            "/health" => Self::Health,
            "/metrics" => Self::Metrics,
            "/v1/models" | "/models" => Self::Models,
            "/model/info" | "/v1/model/info" => Self::ModelInfo,
            _ => return None,
        })
    }
}

fn describe(target: &Target) -> Value {
    json!({
        "model_name": target.model_name.as_ref().map(ModelName::as_str),
        "deployment": target.id.as_str(),
        "model_id": target.model_id.as_ref().map(ModelId::as_str),
        "region": target.region.as_str(),
        "endpoint": target.host.authority,
        "weight": target.traits.weight,
    })
}

fn credentials(target: &Target) -> Value {
    match target.credentials.current() {
        Ok(_) => json!({ "ready": true }),
        Err(error) => json!({ "ready": false, "error": error.to_string() }),
    }
}

/// How a deployment does, and what of its limits is used.
fn condition(target: &Target, now: Instant) -> serde_json::Map<String, Value> {
    let shown = target.live.show(now);
    let quota = target.traits.quota;
    let fields = json!({
        "state": shown.state.as_str(),
        "cooldown_left_s": cooldown_left(shown.state),
        "last_error": target.live.last_error().map(last_error),
        "requests_in_flight": shown.in_flight,
        "latency_ms": { "stream": milliseconds(shown.streams_us), "whole": milliseconds(shown.whole_us) },
        "limits": {
            "rpm": { "used": shown.used.requests, "limit": quota.rpm },
            "tpm": { "used": shown.used.tokens, "limit": quota.tpm },
            "max_parallel_requests": { "used": shown.in_flight, "limit": quota.parallel },
        },
    });
    match fields {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    }
}

/// A server, as the requests of its deployments and the checks of its addresses find it.
fn endpoint(host: &Host, now: Instant) -> Value {
    let (state, report) = (host.health.state(now), host.report());
    json!({
        "endpoint": host.authority,
        "state": state.as_str(),
        "cooldown_left_s": cooldown_left(state),
        "last_error": host.health.last_error().map(last_error),
        "addresses": report.addresses.iter().map(address).collect::<Vec<_>>(),
        "name_failure": report.name_failure.as_ref().map(past_failure),
    })
}

fn address(address: &AddressReport) -> Value {
    json!({
        "address": address.address.to_string(),
        "usable": address.usable,
        "passed_over": address.passed_over,
        "checked_ago_s": address.checked_ago.map(seconds),
        "last_failure": address.last_failure.as_ref().map(past_failure),
    })
}

fn past_failure(failure: &PastFailure) -> Value {
    json!({ "kind": failure.kind.as_str(), "detail": failure.detail, "ago_s": seconds(failure.ago) })
}

fn cooldown_left(state: State) -> Option<f64> {
    match state {
        State::Cooling { left } => Some(seconds(left)),
        State::Healthy | State::HalfOpen => None,
    }
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

fn last_error(error: LastError) -> Value {
    let at = jiff::Timestamp::try_from(error.at).map(|at| at.to_string()).ok();
    json!({ "reason": error.what, "status": error.status, "time": at })
}

fn milliseconds(us: Option<f64>) -> Option<f64> {
    us.map(|us| us.round() / 1e3)
}

fn denied_answer(denied: &Denied) -> Answer {
    refused(&ErrorResponse::new(denied.error_type(), denied.message()), &[])
}

fn refused(response: &ErrorResponse, more: &[(&'static str, String)]) -> Answer {
    let mut headers = response.headers();
    headers.extend_from_slice(more);
    Answer { status: response.status, headers, body: response.body() }
}

fn json_answer(status: u16, value: &Value) -> Answer {
    Answer {
        status,
        headers: vec![("content-type", "application/json".to_owned()), ("cache-control", "no-store".to_owned())],
        body: value.to_string().into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn only_exact_paths_are_pages() {
        for (path, page) in [
            ("/health/liveliness", Some(Page::Liveness)),
            ("/health/liveness", Some(Page::Liveness)),
            ("/health/readiness", Some(Page::Readiness)),
            ("/health", Some(Page::Health)),
            ("/metrics", Some(Page::Metrics)),
            ("/v1/models", Some(Page::Models)),
            ("/model/info", Some(Page::ModelInfo)),
            ("/metrics/", None),
            ("/bedrock/metrics", None),
            ("//metrics", None),
            ("/model/x/converse", None),
        ] {
            assert_eq!(Page::of(path), page, "{path}");
        }
    }
}
