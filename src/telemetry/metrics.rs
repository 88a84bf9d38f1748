//! Prometheus metrics: their names, units and labels in one place.
//!
//! Labels come from the configuration and from the route table, never from a request: a client cannot add a series.
//! Money is counted in whole nano-dollars, so the counter stays exact. `docs/metrics.md` lists every name here.

use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::types::money::NanoUsd;
use crate::types::usage::Usage;

mod register;
mod routing;

use register::{counter, counters, gauge, gauges, histograms};
use routing::Routing;

/// Seconds: from a cache hit of a control-plane read to Nova's hour-long inferences.
const DURATION_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];

/// Seconds the proxy itself adds.
const OVERHEAD_BUCKETS: &[f64] = &[0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];

/// Seconds of a round trip to the store.
const STORE_BUCKETS: &[f64] = &[0.000_01, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];

/// Where a request went, as labels.
#[derive(Debug, Clone, Copy)]
pub struct Route<'a> {
    pub operation: &'a str,
    pub model_name: &'a str,
    pub deployment: &'a str,
    pub region: &'a str,
}

/// What is measured of a finished request.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    pub duration: Duration,
    pub time_to_first_byte: Option<Duration>,
    /// `None` where nothing was sent on.
    pub overhead: Option<Duration>,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    routing: Routing,
    requests: IntCounterVec,
    duration: HistogramVec,
    time_to_first_byte: HistogramVec,
    overhead: HistogramVec,
    tokens: IntCounterVec,
    cost: IntCounterVec,
    unpriced: IntCounterVec,
    profile_lookups: IntCounterVec,
    refused: IntCounterVec,
    in_flight: IntGauge,
    queued: IntGauge,
    queue_wait: Histogram,
    shed: IntCounterVec,
    connections: IntGauge,
    connections_refused: IntCounter,
    buffered: IntGauge,
    records_lost: IntCounter,
    denied: IntCounterVec,
    budget_spent: IntGaugeVec,
    budget_reserved: IntGaugeVec,
    budget_limit: IntGaugeVec,
    soft_budgets: IntCounterVec,
    overrun: IntCounter,
    leases_open: IntGauge,
    leases_expired: IntGauge,
    journal_backlog: IntGauge,
    store_up: IntGauge,
    store_requests: HistogramVec,
    tls_expires: IntGaugeVec,
    tls_reloads: IntCounterVec,
    config_reloads: IntCounterVec,
    config_successful: IntGauge,
    config_success_at: IntGauge,
}

impl Metrics {
    /// # Errors
    /// When a metric is declared twice: a mistake in this file.
    #[expect(clippy::too_many_lines, reason = "a list with one entry per metric")]
    pub fn new() -> prometheus::Result<Self> {
        const ROUTE: &[&str] = &["operation", "model_name", "deployment", "region"];
        let registry = Registry::new();
        let metrics = Self {
            requests: counters(
                &registry,
                "dheera_ai_requests_total",
                "Requests answered, by the status the client got.",
                &["operation", "model_name", "deployment", "region", "status"],
            )?,
            duration: histograms(
                &registry,
                "dheera_ai_request_duration_seconds",
                "From the first byte of the request to the last byte of the answer.",
                ROUTE,
                DURATION_BUCKETS,
            )?,
            time_to_first_byte: histograms(
                &registry,
                "dheera_ai_time_to_first_byte_seconds",
                "From the first byte of the request to the first byte of the upstream's answer.",
                ROUTE,
                DURATION_BUCKETS,
            )?,
            overhead: histograms(
                &registry,
                "dheera_ai_overhead_duration_seconds",
                "What the proxy added before it sent the request on, without the time the client took to send it.",
                &["operation"],
                OVERHEAD_BUCKETS,
            )?,
            tokens: counters(
                &registry,
                "dheera_ai_usage_total",
                "Billable units by type: tokens, images, queries, guardrail units, milliseconds of media.",
                &["model_name", "deployment", "region", "type"],
            )?,
            cost: counters(
                &registry,
                "dheera_ai_cost_nano_usd_total",
                "Cost in nano-dollars (1e-9 USD).",
                &["model_name", "deployment", "region"],
            )?,
            unpriced: counters(
                &registry,
                "dheera_ai_unpriced_requests_total",
                "Successful requests whose cost is not known, by reason.",
                &["operation", "reason"],
            )?,
            profile_lookups: counters(
                &registry,
                "dheera_ai_profile_lookups_total",
                "Questions to AWS for the model of an application inference profile, by result.",
                &["result"],
            )?,
            refused: counters(
                &registry,
                "dheera_ai_refused_total",
                "Requests that the proxy answered with an error of its own, by fault and reason.",
                &["fault", "reason"],
            )?,
            in_flight: gauge(&registry, "dheera_ai_requests_in_flight", "Requests being served.")?,
            queued: gauge(&registry, "dheera_ai_requests_queued", "Requests that wait for a place.")?,
            queue_wait: histograms(
                &registry,
                "dheera_ai_queue_wait_seconds",
                "How long requests waited for a place, of those that had to, whatever became of them.",
                &[],
                OVERHEAD_BUCKETS,
            )?
            .with_label_values::<&str>(&[]),
            shed: counters(
                &registry,
                "dheera_ai_requests_shed_total",
                "Requests sent away because of overload, by what there was too little of.",
                &["reason"],
            )?,
            connections: gauge(&registry, "dheera_ai_connections_open", "Connections of clients.")?,
            connections_refused: counter(
                &registry,
                "dheera_ai_connections_refused_total",
                "Connections closed at once because there were too many.",
            )?,
            buffered: gauge(&registry, "dheera_ai_request_body_bytes_buffered", "Request bodies held in memory.")?,
            records_lost: counter(
                &registry,
                "dheera_ai_request_records_lost_total",
                "Request records that were dropped because the log could not keep up.",
            )?,
            denied: counters(
                &registry,
                "dheera_ai_denied_total",
                "Requests that a budget or limit refused, by its kind and by whose it is.",
                &["reason", "scope"],
            )?,
            budget_spent: gauges(
                &registry,
                "dheera_ai_budget_spent_nano_usd",
                "Spent in the current period of a budget, in nano-dollars.",
                &["scope", "name"],
            )?,
            budget_reserved: gauges(
                &registry,
                "dheera_ai_budget_reserved_nano_usd",
                "Reserved for requests in flight, in nano-dollars.",
                &["scope", "name"],
            )?,
            budget_limit: gauges(
                &registry,
                "dheera_ai_budget_limit_nano_usd",
                "What may be spent in the current period, in nano-dollars.",
                &["scope", "name"],
            )?,
            soft_budgets: counters(
                &registry,
                "dheera_ai_soft_budget_reached_total",
                "Soft budgets that were reached, once a period, by whose they are.",
                &["scope"],
            )?,
            overrun: counter(
                &registry,
                "dheera_ai_budget_overrun_nano_usd_total",
                "Spent beyond what had been reserved, in nano-dollars; anything but 0 is a fault of the proxy or its prices.",
            )?,
            leases_open: gauge(&registry, "dheera_ai_leases_open", "Reservations that are open in the store.")?,
            leases_expired: gauge(
                &registry,
                "dheera_ai_leases_expired",
                "Reservations that were charged in full because their owner was not heard of, since the store was made.",
            )?,
            journal_backlog: gauge(
                &registry,
                "dheera_ai_journal_backlog",
                "Commands in this replica's journal that the store has not confirmed.",
            )?,
            store_up: gauge(&registry, "dheera_ai_store_up", "Whether the store answers.")?,
            store_requests: histograms(
                &registry,
                "dheera_ai_store_request_duration_seconds",
                "Round trips to the store, by command and result.",
                &["command", "result"],
                STORE_BUCKETS,
            )?,
            // Without labels, but only there where a certificate is.
            tls_expires: gauges(
                &registry,
                "dheera_ai_tls_certificate_expires_timestamp_seconds",
                "When the certificate in force expires, in seconds since 1970.",
                &[],
            )?,
            tls_reloads: counters(
                &registry,
                "dheera_ai_tls_certificate_reloads_total",
                "Changed certificate files that were put in force (ok) or could not be used (failed).",
                &["result"],
            )?,
            config_reloads: counters(
                &registry,
                "dheera_ai_config_reloads_total",
                "Configurations read again while running: applied, unchanged, or refused because they are invalid.",
                &["result"],
            )?,
            config_successful: gauge(
                &registry,
                "dheera_ai_config_last_reload_successful",
                "Whether the configuration read last is in force.",
            )?,
            config_success_at: gauge(
                &registry,
                "dheera_ai_config_last_reload_success_timestamp_seconds",
                "When a configuration was last read that is in force, in seconds since 1970.",
            )?,
            routing: Routing::new(&registry)?,
            registry,
        };
        let build =
            IntGaugeVec::new(Opts::new("dheera_ai_build_info", "Always 1; the labels say what runs."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.registry.register(Box::new(build))?;
        metrics.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// Counts a finished request.
    pub fn finished(&self, route: Route<'_>, status: u16, timings: &Timings) {
        let Route { operation, model_name, deployment, region } = route;
        let labels = [operation, model_name, deployment, region];
        self.requests.with_label_values(&[operation, model_name, deployment, region, status_text(status)]).inc();
        self.duration.with_label_values(&labels).observe(timings.duration.as_secs_f64());
        if let Some(first) = timings.time_to_first_byte {
            self.time_to_first_byte.with_label_values(&labels).observe(first.as_secs_f64());
        }
        if let Some(overhead) = timings.overhead {
            self.overhead.with_label_values(&[operation]).observe(overhead.as_secs_f64());
        }
    }

    /// Counts what a call consumed.
    pub fn used(&self, route: Route<'_>, usage: &Usage) {
        for (kind, amount) in usage_dimensions(usage) {
            if amount > 0 {
                self.tokens.with_label_values(&[route.model_name, route.deployment, route.region, kind]).inc_by(amount);
            }
        }
    }

    pub fn spent(&self, route: Route<'_>, cost: NanoUsd) {
        self.cost.with_label_values(&[route.model_name, route.deployment, route.region]).inc_by(cost.0);
    }

    pub fn unpriced(&self, operation: &str, reason: &str) {
        self.unpriced.with_label_values(&[operation, reason]).inc();
    }

    /// AWS was asked for the model of an application inference profile.
    pub fn profile_looked_up(&self, result: &str) {
        self.profile_lookups.with_label_values(&[result]).inc();
    }

    pub fn refused(&self, fault: &str, reason: &str) {
        self.refused.with_label_values(&[fault, reason]).inc();
    }

    /// A budget or limit refused a request.
    pub fn denied(&self, reason: &str, scope: &str) {
        self.denied.with_label_values(&[reason, scope]).inc();
    }

    /// The state of one budget. The caller bounds how many names there are.
    pub fn budget(&self, scope: &str, name: &str, spent: NanoUsd, reserved: NanoUsd, limit: Option<NanoUsd>) {
        let labels = [scope, name];
        self.budget_spent.with_label_values(&labels).set(signed(spent));
        self.budget_reserved.with_label_values(&labels).set(signed(reserved));
        if let Some(limit) = limit {
            self.budget_limit.with_label_values(&labels).set(signed(limit));
        }
    }

    pub fn soft_budget_reached(&self, scope: &str) {
        self.soft_budgets.with_label_values(&[scope]).inc();
    }

    pub fn overrun(&self, beyond: NanoUsd) {
        self.overrun.inc_by(beyond.0);
    }

    pub fn leases(&self, open: u64, expired: u64) {
        self.leases_open.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.leases_expired.set(i64::try_from(expired).unwrap_or(i64::MAX));
    }

    pub fn journal_backlog(&self, commands: u64) {
        self.journal_backlog.set(i64::try_from(commands).unwrap_or(i64::MAX));
    }

    pub fn store_up(&self, up: bool) {
        self.store_up.set(up.into());
    }

    /// `result` is `ok`, `unavailable` or `failed`.
    pub fn store_request(&self, command: &str, result: &str, duration: Duration) {
        self.store_requests.with_label_values(&[command, result]).observe(duration.as_secs_f64());
    }

    /// The certificate in force expires at `not_after_s`, in seconds since 1970.
    pub fn tls_certificate(&self, not_after_s: i64) {
        self.tls_expires.with_label_values::<&str>(&[]).set(not_after_s);
        for result in ["ok", "failed"] {
            // From the start, so that the first one is an increase.
            self.tls_reloads.with_label_values(&[result]).inc_by(0);
        }
    }

    pub fn tls_certificate_reloaded(&self, ok: bool) {
        self.tls_reloads.with_label_values(&[if ok { "ok" } else { "failed" }]).inc();
    }

    /// The configuration of the start is in force, at `now_s` in seconds since 1970.
    pub fn configuration_loaded(&self, now_s: i64) {
        for result in ["applied", "unchanged", "refused"] {
            // From the start, so that the first one is an increase.
            self.config_reloads.with_label_values(&[result]).inc_by(0);
        }
        self.config_successful.set(1);
        self.config_success_at.set(now_s);
    }

    /// `result` is `applied`, `unchanged` or `refused`.
    pub fn configuration_reloaded(&self, result: &str, now_s: i64) {
        let successful = result != "refused";
        self.config_reloads.with_label_values(&[result]).inc();
        self.config_successful.set(successful.into());
        if successful {
            self.config_success_at.set(now_s);
        }
    }

    pub fn record_lost(&self) {
        self.records_lost.inc();
    }

    #[must_use]
    pub const fn in_flight(&self) -> &IntGauge {
        &self.in_flight
    }

    pub fn entered_queue(&self) {
        self.queued.inc();
    }

    pub fn left_queue(&self, waited: Duration) {
        self.queued.dec();
        self.queue_wait.observe(waited.as_secs_f64());
    }

    /// A request was sent away because of overload.
    pub fn shed(&self, reason: &str) {
        self.shed.with_label_values(&[reason]).inc();
    }

    /// Connections of clients that are open.
    #[must_use]
    pub const fn connections(&self) -> &IntGauge {
        &self.connections
    }

    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    pub fn body_kibibytes_held(&self, kibibytes: usize) {
        self.buffered.add(bytes_of(kibibytes));
    }

    pub fn body_kibibytes_released(&self, kibibytes: usize) {
        self.buffered.sub(bytes_of(kibibytes));
    }

    /// The text exposition format.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn encode(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Every dimension of a [`Usage`] with its name in metrics and records.
#[must_use]
pub fn usage_dimensions(usage: &Usage) -> [(&'static str, u64); 22] {
    let units = &usage.guardrail;
    [
        ("input_tokens", usage.input.0),
        ("output_tokens", usage.output.0),
        ("cache_read_input_tokens", usage.cache_read.0),
        ("cache_write_5m_input_tokens", usage.cache_write_5m.0),
        ("cache_write_1h_input_tokens", usage.cache_write_1h.0),
        ("audio_input_tokens", usage.audio_input.0),
        ("audio_output_tokens", usage.audio_output.0),
        ("image_input_tokens", usage.image_input.0),
        ("input_images", usage.images_in),
        ("output_images", usage.images_out),
        ("video_input_ms", usage.video_input_ms),
        ("audio_input_ms", usage.audio_input_ms),
        ("video_output_ms", usage.video_output_ms),
        ("queries", usage.queries),
        ("guardrail_topic_units", units.topic),
        ("guardrail_content_units", units.content),
        ("guardrail_content_image_units", units.content_image),
        ("guardrail_word_units", units.word),
        ("guardrail_sensitive_information_units", units.sensitive_information),
        ("guardrail_sensitive_information_free_units", units.sensitive_information_free),
        ("guardrail_contextual_grounding_units", units.contextual_grounding),
        ("guardrail_automated_reasoning_units", units.automated_reasoning),
    ]
}

fn signed(amount: NanoUsd) -> i64 {
    i64::try_from(amount.0).unwrap_or(i64::MAX)
}

fn bytes_of(kibibytes: usize) -> i64 {
    i64::try_from(kibibytes).unwrap_or(i64::MAX / 1024) * 1024
}

/// The statuses Bedrock and this proxy use, without formatting a number for each request.
const fn status_text(status: u16) -> &'static str {
    match status {
        200 => "200",
        201 => "201",
        202 => "202",
        204 => "204",
        400 => "400",
        401 => "401",
        402 => "402",
        403 => "403",
        404 => "404",
        408 => "408",
        409 => "409",
        413 => "413",
        424 => "424",
        429 => "429",
        499 => "499",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        _ => match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::tokens::Tokens;

    #[test]
    fn a_finished_request_shows_in_the_text() {
        let metrics = Metrics::new().unwrap();
        let route = Route { operation: "Converse", model_name: "claude", deployment: "claude-0", region: "us-east-1" };
        let timings = Timings {
            duration: Duration::from_millis(20),
            time_to_first_byte: Some(Duration::from_millis(10)),
            overhead: Some(Duration::from_micros(80)),
        };
        metrics.finished(route, 200, &timings);
        metrics.used(route, &Usage { input: Tokens(7), ..Usage::default() });
        metrics.spent(route, NanoUsd(123_456_789_012));
        let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
        for line in [
            r#"dheera_ai_requests_total{deployment="claude-0",model_name="claude",operation="Converse",region="us-east-1",status="200"} 1"#,
            r#"dheera_ai_usage_total{deployment="claude-0",model_name="claude",region="us-east-1",type="input_tokens"} 7"#,
            r#"dheera_ai_cost_nano_usd_total{deployment="claude-0",model_name="claude",region="us-east-1"} 123456789012"#,
            concat!("dheera_ai_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\nmissing in\n{text}");
        }
    }
}
