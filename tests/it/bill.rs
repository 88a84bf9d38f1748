//! The whole bill: thousands of mixed calls with failures in between, after which records, metrics and the simulator's
//! own bill have to agree, call by call and in sum, to the nano-dollar.

use std::collections::BTreeMap;
use std::sync::Arc;

use bedrock_sim::Behaviour;
use serde_json::json;

use crate::costs::{
    COST, Case, NOVA, SONNET, UNPRICED, agents, configured, converse, converse_cases, converse_stream, invoke,
    invoke_cases, messages, priced_by_request, rig, surfaces,
};
use crate::support::{Asked, Connection, Http, rules};

/// Mixed traffic of all families. Only what the simulator bills as the client sees it: no agents without a trace, no
/// surfaces without usage, no prices of the configuration.
fn mixture() -> Vec<Case> {
    let all = [converse_cases(), invoke_cases(), priced_by_request(), surfaces(), agents(), configured()];
    let mut mixture: Vec<Case> = all.into_iter().flatten().filter(|case| case.billed).collect();
    mixture.retain(|case| !case.what.starts_with("Marengo") && !case.what.contains("inference profile"));
    for asked in [
        converse("pair", &messages()),
        converse_stream("pair", &messages()),
        invoke("pair", &json!({ "messages": [] })),
    ] {
        mixture.push(Case::new("a pair of deployments", asked, json!({}), 0));
    }
    mixture.push(Case::new("no price", converse("acme.unheard-of-v1:0", &messages()), json!({}), 0));
    mixture.push(Case::new("no price, streamed", converse_stream("acme.unheard-of-v1:0", &messages()), json!({}), 0));
    mixture
}

/// Throttles and errors in between, and what stands behind routers and agents.
fn failures() -> Behaviour {
    rules(&json!([
        { "match": { "model": "*prompt-router*" }, "billed_model": NOVA },
        { "match": { "operation": "Invoke*Agent" }, "billed_model": NOVA },
        { "match": { "operation": "InvokeFlow" }, "billed_model": NOVA },
        { "match": { "model": NOVA, "region": "us-west-2", "skip": 20, "times": 60 }, "fault": { "kind": "throttle", "retry_after_s": 1 } },
        { "match": { "model": NOVA, "region": "us-east-1", "skip": 300, "times": 40 },
          "fault": { "kind": "error", "status": 503, "error_type": "ServiceUnavailableException" } },
        { "match": { "model": SONNET, "skip": 50, "times": 50 }, "fault": { "kind": "throttle" } },
        { "match": { "model": "meta.*", "skip": 5, "times": 20 },
          "fault": { "kind": "error", "status": 400, "error_type": "ValidationException" } },
        { "match": { "operation": "ConverseStream", "skip": 100, "times": 30 },
          "fault": { "kind": "error", "status": 500, "error_type": "InternalServerException" } },
    ]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_metrics_and_bill_agree_to_the_nano_dollar_over_five_thousand_mixed_requests() {
    const REQUESTS: usize = 5_000;
    const CONNECTIONS: usize = 8;
    let rig = rig().await;
    rig.simulator.behave(failures());
    let mixture: Arc<Vec<Asked>> = Arc::new(mixture().into_iter().map(|case| case.asked).collect());
    let address = rig.proxy.address;
    let clients = (0..CONNECTIONS).map(|client| {
        let mixture = Arc::clone(&mixture);
        tokio::spawn(async move {
            let http = if client % 2 == 0 { Http::One } else { Http::Two };
            let mut connection = Connection::open(address, http).await;
            let mut statuses = BTreeMap::<u16, u64>::new();
            for number in (client..REQUESTS).step_by(CONNECTIONS) {
                // 31 and the number of kinds have no common divisor, so that every kind has its turn on every connection.
                let answer = connection.call(&mixture[number * 31 % mixture.len()]).await;
                assert!(answer.broke.is_none(), "{answer:?}");
                *statuses.entry(answer.status).or_default() += 1;
            }
            statuses
        })
    });
    let mut statuses = BTreeMap::<u16, u64>::new();
    for client in clients.collect::<Vec<_>>() {
        for (status, count) in client.await.unwrap() {
            *statuses.entry(status).or_default() += count;
        }
    }
    let records = rig.proxy.records_once(REQUESTS).await;
    assert_eq!(records.len(), REQUESTS);
    assert!([400, 429, 500].iter().all(|status| statuses.contains_key(status)), "{statuses:?}");
    let metrics = rig.proxy.metrics().await;
    let billed = rig.simulator.billed();
    let rows: BTreeMap<String, Option<u64>> =
        rig.simulator.billed_rows().into_iter().map(|row| (row.request_id, row.cost_nano_usd)).collect();
    // Each record against the row of the bill that has its request id, so that a difference names its call.
    let mut wrong = Vec::new();
    for record in &records {
        let billed = record["aws_request_id"].as_str().and_then(|id| rows.get(id)).copied();
        let agrees = match billed {
            Some(cost) => record["cost_nano_usd"].as_u64() == cost && record["unpriced"].is_null() == cost.is_some(),
            None => record["cost_nano_usd"].as_u64().unwrap_or(0) == 0 && record["unpriced"].is_null(),
        };
        if !agrees {
            wrong.push(format!("billed {billed:?}: {record}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {REQUESTS}, such as\n{}", wrong.len(), wrong[0]);
    let recorded: u64 = records.iter().filter_map(|record| record["cost_nano_usd"].as_u64()).sum();
    assert_eq!((recorded, metrics.sum(COST, &[])), (billed.total_nano_usd, billed.total_nano_usd));
    let unpriced = records.iter().filter(|record| !record["unpriced"].is_null()).count() as u64;
    assert!(unpriced > 0);
    assert_eq!((unpriced, metrics.sum(UNPRICED, &[])), (billed.unpriced, billed.unpriced));
    assert_eq!(metrics.sum("dheera_ai_requests_total", &[]), REQUESTS as u64);
    let by_status = metrics.sums_by("dheera_ai_requests_total", "status");
    assert_eq!(by_status, statuses.iter().map(|(status, count)| (status.to_string(), *count)).collect());
    assert!(metrics.sum("dheera_ai_retries_total", &[("reason", "throttled")]) > 0);
    assert!(metrics.sum("dheera_ai_retries_total", &[("reason", "server_error")]) > 0);
    assert_eq!(metrics.sum("dheera_ai_request_records_lost_total", &[]), 0);
    // The scrape itself.
    assert_eq!(metrics.sum("dheera_ai_requests_in_flight", &[]), 1);
    assert_eq!(metrics.sum("dheera_ai_request_body_bytes_buffered", &[]), 0);
    let counters = rig.simulator.counters();
    assert_eq!((counters.authentication_failures, counters.violations, counters.unknown_operations), (0, 0, 0));
}
