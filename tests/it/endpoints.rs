//! The addresses behind an endpoint's name: one that is dead leaves the rotation and comes back, a server that cannot
//! prove its name is told apart from one that is not there. Names come from `libnss_wrapper`, which answers the system's
//! resolver out of a file of the test.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use bedrock_sim::{Options, Running, Simulator};
use openssl::ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_openssl::SslStream;

use crate::support::metrics::Metrics;
use crate::support::{
    Asked, CLAUDE, DEADLINE, Entry, Proxy, Start, TemporaryFile, config, options, simulator, variables,
};
use crate::tls::DevCert;

const NAME: &str = "upstream.test";
const MODEL: &str = "bedrock/us.amazon.nova-pro-v1:0";
const ADDRESSES: &str = "dheera_ai_endpoint_addresses";
const FAILURES: &str = "dheera_ai_endpoint_check_failures_total";

/// Checks five times a second.
const OFTEN: &str = "router_settings:\n  health_check_interval: 0.2\n";

/// A proxy whose resolver reads `names` first.
fn start(config: &str, names: &TemporaryFile, mut variables: Vec<(&'static str, String)>) -> Proxy {
    variables.push(("LD_PRELOAD", "libnss_wrapper.so".to_owned()));
    variables.push(("NSS_WRAPPER_HOSTS", names.path().to_owned()));
    let proxy = Proxy::start(Start { config: Some(config), variables, ..Start::default() });
    assert!(!proxy.stderr().contains("cannot be preloaded"), "libnss-wrapper is missing: run scripts/setup");
    proxy
}

/// One deployment, `claude`, behind `endpoint`.
fn one(endpoint: &str) -> String {
    config(&[Entry { params: &[("aws_bedrock_runtime_endpoint", endpoint)], ..Entry::new("claude", MODEL) }], OFTEN)
}

/// Two deployments of one name behind the same host.
fn two(endpoint: &str, rest: &str) -> String {
    let east = [("aws_bedrock_runtime_endpoint", endpoint), ("aws_region_name", "us-east-1")];
    let west = [("aws_bedrock_runtime_endpoint", endpoint), ("aws_region_name", "us-west-2")];
    let entry = |params| Entry { params, ..Entry::new("claude", MODEL) };
    config(&[entry(&east), entry(&west)], rest)
}

async fn simulator_at(listen: SocketAddr) -> Running {
    Simulator::start(Options { listen, ..options() }).await.unwrap()
}

async fn metrics_once(proxy: &Proxy, what: &str, fits: impl Fn(&Metrics) -> bool) -> Metrics {
    let waiting = async {
        loop {
            let metrics = proxy.metrics().await;
            if fits(&metrics) {
                return metrics;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("in vain waited for {what}\n{}", proxy.stderr()))
}

async fn usable(proxy: &Proxy, host: &str, usable: u64, unusable: u64) -> Metrics {
    let count = |metrics: &Metrics, state| metrics.sum(ADDRESSES, &[("host", host), ("state", state)]);
    let fits = |metrics: &Metrics| (count(metrics, "usable"), count(metrics, "unusable")) == (usable, unusable);
    metrics_once(proxy, &format!("{usable} usable and {unusable} unusable of {host}"), fits).await
}

/// So many calls that all succeed. How many attempts they took in all.
async fn calls(proxy: &Proxy, count: usize) -> u64 {
    let mut attempts = 0;
    for _ in 0..count {
        let answer = proxy.call(&Asked::converse(CLAUDE)).await;
        assert_eq!(answer.status, 200, "{answer:?}\n{}", proxy.stderr());
        attempts += answer.header("x-dheera-ai-attempts").unwrap().parse::<u64>().unwrap();
    }
    attempts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_address_leaves_the_rotation_and_comes_back() {
    let first = simulator().await;
    let port = first.addr().port();
    let second_address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port));
    let second = simulator_at(second_address).await;
    let names = TemporaryFile::new("hosts", &format!("127.0.0.1 {NAME}\n127.0.0.2 {NAME}\n"));
    let host = format!("{NAME}:{port}");
    let proxy = start(&two(&format!("http://{host}"), OFTEN), &names, variables(&first));
    usable(&proxy, &host, 2, 0).await;
    assert_eq!(calls(&proxy, 20).await, 20);
    assert_eq!((first.counters().requests, second.counters().requests), (10, 10), "in turn");

    second.shutdown().await;
    // Before a check has found it, too: the first connection that fails is enough to look elsewhere.
    assert!(calls(&proxy, 20).await <= 22, "an address that just failed is passed over");
    let metrics = usable(&proxy, &host, 1, 1).await;
    assert!(metrics.sum(FAILURES, &[("host", &host), ("kind", "refused")]) >= 2);
    let before = first.counters().requests;
    assert_eq!(calls(&proxy, 20).await, 20, "the dead address is not tried");
    assert_eq!(first.counters().requests - before, 20);

    let second = simulator_at(second_address).await;
    usable(&proxy, &host, 2, 0).await;
    assert_eq!(calls(&proxy, 20).await, 20);
    assert_eq!(second.counters().requests, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_checks_a_failed_connection_alone_keeps_calls_away() {
    let simulator = simulator().await;
    let names = TemporaryFile::new("hosts", &format!("127.0.0.1 {NAME}\n127.0.0.2 {NAME}\n"));
    let endpoint = format!("http://{NAME}:{}", simulator.addr().port());
    let rest = "router_settings:\n  health_check_interval: 0\n";
    let proxy = start(&two(&endpoint, rest), &names, variables(&simulator));
    // One in five seconds finds out whether it is still dead; in turn it would be one for each call.
    let attempts = calls(&proxy, 40).await;
    assert!((41..50).contains(&attempts), "{attempts}");
    let metrics = proxy.metrics().await;
    assert_eq!((metrics.sum(ADDRESSES, &[("state", "usable")]), metrics.sum(FAILURES, &[])), (2, 0), "nobody checked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_every_address_fails_its_check_they_are_used_all_the_same() {
    let simulator = simulator().await;
    let address = simulator.addr();
    let names = TemporaryFile::new("hosts", "");
    let proxy = start(&one(&format!("http://{address}")), &names, variables(&simulator));
    calls(&proxy, 1).await;
    simulator.shutdown().await;
    usable(&proxy, &address.to_string(), 0, 1).await;
    let answer = proxy.call(&Asked::converse(CLAUDE)).await;
    answer.assert_error(503, "ServiceUnavailableException");
    let record = proxy.record(answer.call_id()).await;
    assert_eq!(record["attempts"][0]["setback"], "connect", "it was tried: {record}");
    let _again = simulator_at(address).await;
    usable(&proxy, &address.to_string(), 1, 0).await;
    calls(&proxy, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_appears_late_is_found() {
    let simulator = simulator().await;
    let host = format!("{NAME}:{}", simulator.addr().port());
    let names = TemporaryFile::new("hosts", "");
    let proxy = start(&one(&format!("http://{host}")), &names, variables(&simulator));
    metrics_once(&proxy, "a failed look-up", |metrics| metrics.sum(FAILURES, &[("host", &host), ("kind", "name")]) > 0)
        .await;
    proxy.call(&Asked::converse(CLAUDE)).await.assert_error(503, "ServiceUnavailableException");
    assert!(proxy.stderr().contains(&format!("the name {NAME} does not resolve")), "{}", proxy.stderr());
    std::fs::write(&names.0, format!("127.0.0.1 {NAME}\n")).unwrap();
    // The library reads a file again when the second of its last change is another.
    let later = SystemTime::now() + Duration::from_secs(10);
    std::fs::File::options().write(true).open(&names.0).unwrap().set_modified(later).unwrap();
    let served = async {
        while proxy.call(&Asked::converse(CLAUDE)).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(DEADLINE, served).await.unwrap_or_else(|_| panic!("not served\n{}", proxy.stderr()));
}

/// A server that makes handshakes and says nothing.
async fn tls_server(made: &DevCert) -> SocketAddr {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_certificate_chain_file(made.path("cert.pem")).unwrap();
    acceptor.set_private_key_file(made.path("key.pem"), SslFiletype::PEM).unwrap();
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = SslStream::new(Ssl::new(acceptor.context()).unwrap(), stream).unwrap();
            // Clients that do not trust it break off.
            drop(timeout(DEADLINE, std::pin::Pin::new(&mut stream).accept()).await);
        }
    });
    address
}

/// As requests do, a check goes to the end of the handshake: it wants a certificate of this name that the bundle covers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_prove_its_name_is_unusable() {
    let made = DevCert::new();
    let simulator = simulator().await;
    let names = TemporaryFile::new("hosts", &format!("127.0.0.1 {NAME}\n127.0.0.1 localhost\n"));
    for (name, trusted, proven) in [("localhost", true, true), ("localhost", false, false), (NAME, true, false)] {
        let server = tls_server(&made).await;
        let host = format!("{name}:{}", server.port());
        let mut variables = variables(&simulator);
        if trusted {
            variables.push(("AWS_CA_BUNDLE", made.path("ca.pem").to_str().unwrap().to_owned()));
        }
        let proxy = start(&one(&format!("https://{host}")), &names, variables);
        let metrics = usable(&proxy, &host, u64::from(proven), u64::from(!proven)).await;
        let kinds: Vec<_> = metrics.sums_by(FAILURES, "kind").into_keys().collect();
        assert_eq!(kinds, if proven { vec![] } else { vec!["tls".to_owned()] });
        if !proven {
            proxy.call(&Asked::converse(CLAUDE)).await.assert_error(503, "ServiceUnavailableException");
        }
    }
}
