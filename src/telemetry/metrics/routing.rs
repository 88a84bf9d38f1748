//! Metrics of deployments and of the servers behind them: what becomes of attempts, who is left alone, where requests
//! go instead.

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGaugeVec, Registry};

use super::Metrics;
use super::register::{counter, counters, gauges, seconds};

/// What the latency of a deployment is of.
const LATENCIES: [&str; 2] = ["stream", "whole"];

#[derive(Debug)]
pub(super) struct Routing {
    setbacks: IntCounterVec,
    broken_answers: IntCounterVec,
    retry_budget_exhausted: IntCounter,
    affinity: IntCounterVec,
    cooldowns: IntCounterVec,
    endpoint_cooldowns: IntCounterVec,
    deployment_state: IntGaugeVec,
    deployment_in_flight: IntGaugeVec,
    deployment_latency: GaugeVec,
    endpoint_state: IntGaugeVec,
    endpoint_addresses: IntGaugeVec,
    endpoint_check_failures: IntCounterVec,
    credentials_ready: IntGaugeVec,
    fallbacks: IntCounterVec,
}

impl Routing {
    #[expect(clippy::too_many_lines, reason = "a list with one entry per metric")]
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            setbacks: counters(
                registry,
                "dheera_ai_retries_total",
                "Attempts that failed before anything of their answer left and went on to another deployment, by reason.",
                &["deployment", "reason"],
            )?,
            broken_answers: counters(
                registry,
                "dheera_ai_broken_answers_total",
                "Answers that began as a success and did not end as one, by cause.",
                &["deployment", "cause"],
            )?,
            retry_budget_exhausted: counter(
                registry,
                "dheera_ai_retry_budget_exhausted_total",
                "Errors delivered although a deployment was left, because the retry budget was used up.",
            )?,
            affinity: counters(
                registry,
                "dheera_ai_cache_affinity_total",
                "Requests that belong to a deployment: whether they got there (hit), it had too much to do (busy), or it \
                 could not be used (away).",
                &["result"],
            )?,
            cooldowns: counters(
                registry,
                "dheera_ai_deployment_cooldowns_total",
                "Cooldowns of a deployment, by cause: throttle or failures.",
                &["deployment", "cause"],
            )?,
            endpoint_cooldowns: counters(
                registry,
                "dheera_ai_endpoint_cooldowns_total",
                "Cooldowns of a server that could not be reached, for all deployments behind it.",
                &["host"],
            )?,
            deployment_state: gauges(
                registry,
                "dheera_ai_deployment_state",
                "Whether a deployment is in use (0), half-open (1) or cools (2).",
                &["deployment"],
            )?,
            deployment_in_flight: gauges(
                registry,
                "dheera_ai_deployment_in_flight",
                "Requests under way at a deployment.",
                &["deployment"],
            )?,
            deployment_latency: seconds(
                registry,
                "dheera_ai_deployment_latency_seconds",
                "Moving average by which deployments are chosen: to the first byte of a stream, to the end of a whole answer.",
                &["deployment", "kind"],
            )?,
            endpoint_state: gauges(
                registry,
                "dheera_ai_endpoint_state",
                "Whether a server is in use (0), half-open (1) or cools (2), as requests find it.",
                &["host"],
            )?,
            endpoint_addresses: gauges(
                registry,
                "dheera_ai_endpoint_addresses",
                "Addresses of an upstream host that pass their health check (usable) or do not (unusable).",
                &["host", "state"],
            )?,
            endpoint_check_failures: counters(
                registry,
                "dheera_ai_endpoint_check_failures_total",
                "Health checks of an upstream host's addresses that failed, and look-ups of its name, by kind.",
                &["host", "kind"],
            )?,
            credentials_ready: gauges(
                registry,
                "dheera_ai_credentials_ready",
                "Whether a deployment's credentials are usable now.",
                &["deployment"],
            )?,
            fallbacks: counters(
                registry,
                "dheera_ai_fallbacks_total",
                "Requests that went on to another model name, because none of its deployments could serve (failing) or \
                 their prompt was too long (context_window).",
                &["model_name", "fallback", "reason"],
            )?,
        })
    }
}

impl Metrics {
    pub fn set_back(&self, deployment: &str, reason: &str) {
        self.routing.setbacks.with_label_values(&[deployment, reason]).inc();
    }

    /// An answer that began as a success did not end as one.
    pub fn ended_badly(&self, deployment: &str, cause: &str) {
        self.routing.broken_answers.with_label_values(&[deployment, cause]).inc();
    }

    pub fn retry_budget_exhausted(&self) {
        self.routing.retry_budget_exhausted.inc();
    }

    /// A request that belongs to a deployment got there, or did not.
    pub fn affinity(&self, result: &str) {
        self.routing.affinity.with_label_values(&[result]).inc();
    }

    /// A deployment began a cooldown.
    pub fn cooled(&self, deployment: &str, cause: &str) {
        self.routing.cooldowns.with_label_values(&[deployment, cause]).inc();
    }

    /// A server began a cooldown.
    pub fn endpoint_cooled(&self, host: &str) {
        self.routing.endpoint_cooldowns.with_label_values(&[host]).inc();
    }

    /// A request went on from one model name to another.
    pub fn fell_back(&self, from: &str, to: &str, reason: &str) {
        self.routing.fallbacks.with_label_values(&[from, to, reason]).inc();
    }

    /// How a deployment does: its state as a number, its requests under way, and its latencies in microseconds, of streams
    /// and of whole answers.
    pub fn deployment(&self, deployment: &str, state: u8, in_flight: u32, latencies_us: [Option<f64>; 2]) {
        self.routing.deployment_state.with_label_values(&[deployment]).set(state.into());
        self.routing.deployment_in_flight.with_label_values(&[deployment]).set(in_flight.into());
        for (kind, latency_us) in LATENCIES.into_iter().zip(latencies_us) {
            if let Some(latency_us) = latency_us {
                self.routing.deployment_latency.with_label_values(&[deployment, kind]).set(latency_us / 1e6);
            }
        }
    }

    pub fn endpoint_state(&self, host: &str, state: u8) {
        self.routing.endpoint_state.with_label_values(&[host]).set(state.into());
    }

    /// How many addresses an upstream host has.
    pub fn endpoint_addresses(&self, host: &str, usable: usize, unusable: usize) {
        for (state, count) in [("usable", usable), ("unusable", unusable)] {
            self.routing
                .endpoint_addresses
                .with_label_values(&[host, state])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// No deployment names the upstream host any more.
    pub fn endpoint_gone(&self, host: &str) {
        for state in ["usable", "unusable"] {
            // It has no series when its name never resolved.
            drop(self.routing.endpoint_addresses.remove_label_values(&[host, state]));
        }
        drop(self.routing.endpoint_state.remove_label_values(&[host]));
    }

    /// A health check of an upstream host failed, or the look-up of its name.
    pub fn endpoint_check_failed(&self, host: &str, kind: &str) {
        self.routing.endpoint_check_failures.with_label_values(&[host, kind]).inc();
    }

    /// A deployment is no longer configured: gauges of it would tell of what is not there.
    pub fn deployment_gone(&self, deployment: &str) {
        // It may never have had them.
        drop(self.routing.credentials_ready.remove_label_values(&[deployment]));
        drop(self.routing.deployment_state.remove_label_values(&[deployment]));
        drop(self.routing.deployment_in_flight.remove_label_values(&[deployment]));
        for kind in LATENCIES {
            drop(self.routing.deployment_latency.remove_label_values(&[deployment, kind]));
        }
    }

    pub fn credentials_ready(&self, deployment: &str, ready: bool) {
        self.routing.credentials_ready.with_label_values(&[deployment]).set(ready.into());
    }
}
