//! What of a configuration takes a restart: what was opened, bound or measured out at the start. A reload puts the old
//! values back in their place, names the keys, and applies the rest.
//!
//! The structures are taken apart field by field, so that a new field does not compile until it is decided here.

use crate::admission::CLAIMED_PART;
use crate::config::{Access, Budgets, Config, Limits, Listen, Router, Tls};

/// Puts into `new` what this process cannot change of `old`, and gives the keys whose values differed.
pub(super) fn keep(old: &Config, new: &mut Config) -> Vec<&'static str> {
    let mut kept = Kept(Vec::new());
    kept.access(old, new);
    kept.listen(&old.listen, &mut new.listen);
    kept.limits(&old.limits, &mut new.limits);
    kept.budgets(&old.budgets, &mut new.budgets);
    if old.store.is_some() && new.store.is_some() {
        kept.field("general_settings.redis_*", &old.store, &mut new.store);
    }
    kept.field("general_settings.request_log", &old.request_log, &mut new.request_log);
    kept.field("AWS_CA_BUNDLE", &old.endpoints.ca_bundle, &mut new.endpoints.ca_bundle);
    kept.field("environment_variables", &old.environment, &mut new.environment);
    let Router { health_check_interval, .. } = &mut new.router;
    kept.field("router_settings.health_check_interval", &old.router.health_check_interval, health_check_interval);
    kept.0
}

/// The keys so far.
struct Kept(Vec<&'static str>);

impl Kept {
    fn field<T: Clone + PartialEq>(&mut self, key: &'static str, old: &T, new: &mut T) {
        if old != new {
            new.clone_from(old);
            self.0.push(key);
        }
    }

    /// With the first master key come the store and everything that needs one. Without its last one a proxy that was
    /// bound to all addresses would be open to everybody.
    fn access(&mut self, old: &Config, new: &mut Config) {
        let Access { master_key, salt_key: _, allow_anonymous: _, require_auth_for_metrics: _ } = &mut new.access;
        if old.access.master_key.is_some() != master_key.is_some() {
            self.field("general_settings.master_key", &old.access.master_key, master_key);
            new.store.clone_from(&old.store);
        }
    }

    fn listen(&mut self, old: &Listen, new: &mut Listen) {
        let Listen { host, port, tls, workers, upgrade: _, upgrade_socket } = new;
        self.field("general_settings.host", &old.host, host);
        self.field("general_settings.port", &old.port, port);
        self.field("general_settings.num_workers", &old.workers, workers);
        self.field("general_settings.upgrade_socket", &old.upgrade_socket, upgrade_socket);
        match (&old.tls, tls) {
            (Some(old), Some(Tls { port, files: _, certificate: _ })) => {
                self.field("general_settings.ssl_port", &old.port, port);
            }
            (old, new) => self.field("general_settings.ssl_certfile_path", old, new),
        }
    }

    fn limits(&mut self, old: &Limits, new: &mut Limits) {
        let Limits {
            body_bytes_max,
            buffered_bytes_max,
            header_bytes_max,
            header_count_max,
            body_timeout: _,
            client_idle_timeout,
            upstream_idle_timeout: _,
            shutdown_timeout,
            shutdown_delay,
            connections_max,
            in_flight_max,
            queued_max,
            queue_timeout,
            header_timeout,
            client_rate_min: _,
        } = new;
        self.field("general_settings.max_buffered_size_mb", &old.buffered_bytes_max, buffered_bytes_max);
        // The room for bodies was measured out so that one of any size fits.
        if *body_bytes_max > old.body_bytes_max.max(old.buffered_bytes_max / CLAIMED_PART) {
            self.field("general_settings.max_request_size_mb", &old.body_bytes_max, body_bytes_max);
        }
        self.field("general_settings.max_header_size_kb", &old.header_bytes_max, header_bytes_max);
        self.field("general_settings.max_header_count", &old.header_count_max, header_count_max);
        self.field("general_settings.client_idle_timeout", &old.client_idle_timeout, client_idle_timeout);
        self.field("general_settings.shutdown_timeout", &old.shutdown_timeout, shutdown_timeout);
        self.field("general_settings.shutdown_delay", &old.shutdown_delay, shutdown_delay);
        self.field("general_settings.max_connections", &old.connections_max, connections_max);
        self.field("general_settings.max_in_flight_requests", &old.in_flight_max, in_flight_max);
        self.field("general_settings.max_queued_requests", &old.queued_max, queued_max);
        self.field("general_settings.admission_queue_timeout", &old.queue_timeout, queue_timeout);
        self.field("general_settings.client_header_timeout", &old.header_timeout, header_timeout);
    }

    fn budgets(&mut self, old: &Budgets, new: &mut Budgets) {
        let Budgets {
            state_directory,
            global: _,
            time_zone: _,
            allow_unpriced: _,
            unknown_usage: _,
            on_low_budget: _,
            drain_timeout: _,
            drain_bytes_max: _,
            spend_log_retention,
            slice_max,
            soft_budget_webhook,
            metric_names_max,
            end_user_headers: _,
            tag_headers: _,
            cache_entries_max,
        } = new;
        let retention = "general_settings.maximum_spend_logs_retention_period";
        self.field("general_settings.store_path", &old.state_directory, state_directory);
        self.field(retention, &old.spend_log_retention, spend_log_retention);
        self.field("general_settings.budget_slice_max", &old.slice_max, slice_max);
        self.field("general_settings.soft_budget_webhook_url", &old.soft_budget_webhook, soft_budget_webhook);
        self.field("general_settings.metric_names_max", &old.metric_names_max, metric_names_max);
        self.field("general_settings.user_api_key_cache_max_size", &old.cache_entries_max, cache_entries_max);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::load::{CliOverrides, Source, load};
    use crate::types::secret::Secret;

    fn config(text: &str) -> Config {
        let environment = BTreeMap::from([("AWS_REGION".to_owned(), Secret::new("us-east-1"))]);
        let source = Source::Text { name: "c.yaml".to_owned(), text: text.to_owned() };
        load(source, &environment, &CliOverrides::default()).unwrap_or_else(|problems| panic!("{problems}")).config
    }

    const MASTER: &str = "general_settings: {master_key: sk-master-0123456789abcdef";

    #[test]
    fn what_can_change_is_no_reason_for_a_restart() {
        let old = config(&format!("{MASTER}}}"));
        let changed = "max_request_size_mb: 10, body_timeout: 7, upstream_idle_timeout: 9, unpriced: allow, \
                       drain_timeout: 3, budget_time_zone: Europe/Berlin, operation_prices: {Retrieve: 0.1}}";
        let mut new = config(&format!("{MASTER}, {changed}\nrouter_settings: {{num_retries: 7, cooldown_time: 9}}"));
        assert_eq!(keep(&old, &mut new), [""; 0]);
        assert_eq!((new.router.num_retries, new.limits.body_bytes_max), (7, 10 * 1024 * 1024));
        assert_ne!(old, new);
    }

    #[test]
    fn what_cannot_change_keeps_its_value_and_is_named() {
        let old = config(&format!("{MASTER}}}"));
        let changed = "host: 127.0.0.1, port: 1, num_workers: 37, store_path: /tmp/x, request_log: 'off', \
                       max_header_count: 70, redis_url: 'redis://127.0.0.1:1', unpriced: allow}";
        let mut new = config(&format!("{MASTER}, {changed}\nenvironment_variables: {{AWS_PROFILE: x}}"));
        let kept = keep(&old, &mut new);
        for key in ["host", "port", "num_workers", "store_path", "request_log", "max_header_count", "redis_*"] {
            assert!(kept.contains(&format!("general_settings.{key}").as_str()), "{key}: {kept:?}");
        }
        assert!(kept.contains(&"environment_variables"), "{kept:?}");
        assert_eq!((&new.listen, &new.store, &new.request_log), (&old.listen, &old.store, &old.request_log));
        assert!(new.budgets.allow_unpriced, "the rest is taken");
        assert_eq!(keep(&old, &mut new), [""; 0], "nothing is left to keep");
    }

    #[test]
    fn a_master_key_can_be_replaced_but_not_given_up() {
        let old = config(&format!("{MASTER}}}"));
        let mut other = config("general_settings: {master_key: sk-another-0123456789abcdef}");
        assert_eq!(keep(&old, &mut other), [""; 0]);
        assert_ne!(old.access, other.access);
        let mut none = config("");
        let kept = keep(&old, &mut none);
        assert!(kept.contains(&"general_settings.master_key"), "{kept:?}");
        assert_eq!((&none.access.master_key, &none.store), (&old.access.master_key, &old.store));
        let mut first = config(&format!("{MASTER}}}"));
        assert!(keep(&config(""), &mut first).contains(&"general_settings.master_key"));
        assert_eq!((first.access.master_key, first.store), (None, None));
    }

    #[test]
    fn a_body_that_may_not_fit_into_the_room_for_bodies_takes_a_restart() {
        let old = config(&format!("{MASTER}, max_buffered_size_mb: 100, max_request_size_mb: 10}}"));
        for (size, kept) in [(25, false), (26, true)] {
            let text = format!("{MASTER}, max_buffered_size_mb: 100, max_request_size_mb: {size}}}");
            assert_eq!(keep(&old, &mut config(&text)) == ["general_settings.max_request_size_mb"], kept, "{size}");
        }
    }
}
