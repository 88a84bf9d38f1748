//! Real sockets; discovery and checks are run by hand, so nothing waits for a clock.

use std::net::{SocketAddr, TcpListener};

use super::*;
use crate::config::Endpoint;
use crate::deployment::host::Report;

/// An address of this machine that no other test uses, so that a port which one of these gives up stays free.
const THIS: &str = "127.0.0.77";

fn addresses(interval: Duration, hosts: Hosts) -> UpstreamAddresses {
    let checks = Checks { interval, connect_timeout: Duration::from_secs(5), connector: ConnectorOptions::new(1) };
    UpstreamAddresses::new(hosts, checks, Arc::new(Metrics::new().unwrap()))
}

fn host(tls: bool, name: &str, port: u16) -> Arc<Host> {
    Arc::new(Host::new(Endpoint { tls, host: name.to_owned(), port, path_prefix: String::new() }))
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((THIS, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn check(balancer: &LoadBalancer<RoundRobin>, times: usize) {
    balancer.update().await.unwrap();
    for _ in 0..times {
        balancer.backends().run_health_check(true).await;
    }
}

fn scraped(kept: &UpstreamAddresses, line: &str) -> bool {
    String::from_utf8(kept.metrics.encode().unwrap()).unwrap().lines().any(|own| own == line)
}

fn kind(report: &Report) -> Option<ConnectFailure> {
    report.addresses[0].last_failure.as_ref().map(|failure| failure.kind)
}

#[tokio::test]
async fn an_address_is_out_after_two_failed_checks_and_back_after_one() {
    let (open, address) = listener();
    let host = host(false, THIS, address.port());
    host.mark_used();
    let kept = addresses(Duration::from_secs(15), Box::new(Vec::new));
    let balancer = kept.balancer(&host);
    check(&balancer, 1).await;
    assert!(host.report().is_healthy() && host.report().addresses[0].checked_ago.is_some());
    drop(open);
    check(&balancer, 1).await;
    let once = host.report();
    assert!(once.is_healthy() && once.addresses[0].passed_over, "one failure says little: {once:?}");
    assert_eq!(kind(&once), Some(ConnectFailure::Refused));
    check(&balancer, 1).await;
    assert!(!host.report().is_healthy());
    let labels = format!("host=\"{}\"", host.authority);
    assert!(scraped(&kept, &format!("dheera_ai_endpoint_addresses{{{labels},state=\"unusable\"}} 1")));
    assert!(scraped(&kept, &format!("dheera_ai_endpoint_check_failures_total{{{labels},kind=\"refused\"}} 2")));
    let _again = TcpListener::bind(address).unwrap();
    check(&balancer, 1).await;
    assert!(host.report().is_healthy());
    assert!(scraped(&kept, &format!("dheera_ai_endpoint_addresses{{{labels},state=\"usable\"}} 1")));
}

/// A host whose balancer starts anew while it is out, as after a change of the configuration.
#[tokio::test]
async fn a_new_balancer_brings_back_what_an_old_one_took_out() {
    let (_open, address) = listener();
    let host = host(false, THIS, address.port());
    host.mark_used();
    host.take_out(address);
    check(&addresses(Duration::from_secs(15), Box::new(Vec::new)).balancer(&host), 1).await;
    assert!(host.report().is_healthy());
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_fails_the_check_by_its_kind() {
    let (open, address) = listener();
    let rude = std::thread::spawn(move || drop(open.accept()));
    let host = host(true, THIS, address.port());
    host.mark_used();
    check(&addresses(Duration::from_secs(15), Box::new(Vec::new)).balancer(&host), 1).await;
    rude.join().unwrap();
    assert_eq!(kind(&host.report()), Some(ConnectFailure::Tls), "{:?}", host.report());
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_counted_and_leaves_what_is_known() {
    let host = host(true, "no-such-host.invalid", 443);
    host.mark_used();
    let kept = addresses(Duration::from_secs(15), Box::new(Vec::new));
    kept.balancer(&host).update().await.unwrap_err();
    assert!(scraped(&kept, "dheera_ai_endpoint_check_failures_total{host=\"no-such-host.invalid\",kind=\"name\"} 1"));
    assert_eq!(host.report().name_failure.unwrap().kind, ConnectFailure::Name);
}

#[tokio::test]
async fn hosts_that_nobody_uses_and_checks_that_are_off_connect_nowhere() {
    let (open, address) = listener();
    open.set_nonblocking(true).unwrap();
    let idle = host(false, THIS, address.port());
    let kept = addresses(Duration::from_secs(15), Box::new(Vec::new));
    check(&kept.balancer(&idle), 1).await;
    assert!(!scraped_any(&kept), "no series either");
    let used = host(false, THIS, address.port());
    used.mark_used();
    check(&addresses(Duration::ZERO, Box::new(Vec::new)).balancer(&used), 1).await;
    assert_eq!(open.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(used.report().addresses[0].checked_ago, None);
    check(&kept.balancer(&used), 1).await;
    open.accept().unwrap();
}

fn scraped_any(kept: &UpstreamAddresses) -> bool {
    String::from_utf8(kept.metrics.encode().unwrap()).unwrap().contains("dheera_ai_endpoint_addresses{")
}

#[tokio::test]
async fn hosts_come_and_go() {
    let hosts = Arc::new(std::sync::Mutex::new(vec![host(false, "127.0.0.1", 1), host(false, "127.0.0.1", 2)]));
    let of_the_moment = Arc::clone(&hosts);
    let kept = addresses(Duration::ZERO, Box::new(move || of_the_moment.lock().unwrap().clone()));
    let (_stop, shutdown) = tokio::sync::watch::channel(false);
    let (mut running, mut tasks) = (Vec::new(), JoinSet::new());
    let ports = |running: &[Kept]| running.iter().map(|one| one.host.endpoint.port).collect::<Vec<_>>();
    kept.follow(&mut running, &mut tasks, &shutdown);
    assert_eq!(ports(&running), [1, 2]);
    let gone = running[0].task.clone();
    hosts.lock().unwrap().remove(0);
    hosts.lock().unwrap().push(host(false, "127.0.0.1", 3));
    kept.follow(&mut running, &mut tasks, &shutdown);
    assert_eq!(ports(&running), [2, 3]);
    assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled() && gone.is_finished());
    running[0].task.abort();
    assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
    kept.follow(&mut running, &mut tasks, &shutdown);
    assert_eq!(ports(&running), [3, 2], "one that ended by itself starts again");
    assert!(running.iter().all(|one| !one.task.is_finished()));
}

#[test]
fn periods_differ_by_a_tenth_at_most() {
    let interval = Duration::from_secs(20);
    for (random, expected_ms) in [(0.0, 18_000), (0.5, 20_000), (1.0, 22_000)] {
        // To the millisecond: the factor is a float.
        assert!(jittered(interval, random).as_millis().abs_diff(expected_ms) <= 1, "{random}");
    }
}
