//! The TLS port: versions of HTTP by ALPN, clients that speak no TLS, certificates that change while requests run, and a
//! plain port beside it. Certificates are those of `dheera_ai dev-cert`.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bedrock_sim::Running;
use nix::sys::signal::Signal;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslVerifyMode, SslVersion};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_openssl::SslStream;

use crate::support::metrics::Metrics;
use crate::support::{
    Answer, Asked, Connection, DEADLINE, End, Entry, Http, Proxy, Raw, Start, TemporaryDirectory, config, eventually,
    run_to_end, simulator, variables, whole,
};

const MODEL: &str = "/bedrock/model/nova/converse";

/// A directory in which `dev-cert` makes certificates.
pub(crate) struct DevCert(TemporaryDirectory);

impl DevCert {
    pub(crate) fn new() -> Self {
        let made = Self(TemporaryDirectory::new("dev-cert"));
        made.make(&[]);
        made
    }

    fn make(&self, more: &[&str]) {
        let arguments = [&["dev-cert", "--dir", self.0.path()], more].concat();
        let done = run_to_end(&arguments, &[]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.0.join(name)
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |name| self.path(name).to_str().unwrap().to_owned();
        vec![("SSL_CERTFILE_PATH", path("cert.pem")), ("SSL_KEYFILE_PATH", path("key.pem"))]
    }

    /// A client that trusts what is there now.
    fn client(&self) -> Client {
        Client { ca: Some(self.path("ca.pem")), alpn: b"\x02h2\x08http/1.1", version: None }
    }
}

/// How to connect.
#[derive(Clone)]
struct Client {
    /// Whom to trust; without it the proxy need not prove itself.
    ca: Option<PathBuf>,
    alpn: &'static [u8],
    version: Option<SslVersion>,
}

impl Client {
    async fn try_connect(&self, address: SocketAddr) -> Result<SslStream<TcpStream>, openssl::ssl::Error> {
        let mut context = SslContext::builder(SslMethod::tls_client()).unwrap();
        match &self.ca {
            Some(ca) => {
                context.set_ca_file(ca).unwrap();
                context.set_verify(SslVerifyMode::PEER);
            }
            None => context.set_verify(SslVerifyMode::NONE),
        }
        // Old versions are refused by Debian's OpenSSL itself unless that is lowered.
        context.set_cipher_list("DEFAULT@SECLEVEL=0").unwrap();
        context.set_min_proto_version(self.version.or(Some(SslVersion::TLS1))).unwrap();
        context.set_max_proto_version(self.version).unwrap();
        if !self.alpn.is_empty() {
            context.set_alpn_protos(self.alpn).unwrap();
        }
        let context = context.build();
        let mut ssl = Ssl::new(&context).unwrap();
        ssl.set_hostname("localhost").unwrap();
        ssl.param_mut().set_host("localhost").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = SslStream::new(ssl, stream).unwrap();
        timeout(DEADLINE, Pin::new(&mut stream).connect()).await.expect("no handshake in time")?;
        Ok(stream)
    }

    async fn connect(&self, address: SocketAddr) -> SslStream<TcpStream> {
        self.try_connect(address).await.unwrap_or_else(|error| panic!("no handshake: {error}"))
    }

    async fn call(&self, address: SocketAddr, asked: &Asked) -> Answer {
        let stream = self.connect(address).await;
        let http = http_of(&stream);
        Connection::over(stream, http).await.call(asked).await
    }

    async fn metrics(&self, address: SocketAddr) -> Metrics {
        let answer = self.call(address, &Asked::get("/metrics")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics::parse(&answer.text())
    }

    /// Waits until so many changes of the files came out as `result`.
    async fn reloads(&self, address: SocketAddr, result: &str, count: u64) {
        let waiting = async {
            while self.metrics(address).await.sum(RELOADS, &[("result", result)]) < count {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("in vain waited for {count} {result}"));
        assert_eq!(self.metrics(address).await.sum(RELOADS, &[("result", result)]), count);
    }
}

const RELOADS: &str = "dheera_ai_tls_certificate_reloads_total";
const EXPIRES: &str = "dheera_ai_tls_certificate_expires_timestamp_seconds";

fn http_of(stream: &SslStream<TcpStream>) -> Http {
    if stream.ssl().selected_alpn_protocol() == Some(b"h2") { Http::Two } else { Http::One }
}

/// The serial number of the certificate that was shown.
fn shown(stream: &SslStream<TcpStream>) -> String {
    stream.ssl().peer_certificate().unwrap().serial_number().to_bn().unwrap().to_hex_str().unwrap().to_string()
}

async fn start(made: &DevCert, arguments: Vec<&str>) -> (Running, Proxy) {
    let simulator = simulator().await;
    let text = config(&[Entry::new("nova", "bedrock/us.amazon.nova-pro-v1:0")], "");
    let mut variables = variables(&simulator);
    variables.extend(made.variables());
    let proxy = Proxy::start(Start { config: Some(&text), variables, arguments, ..Start::default() });
    (simulator, proxy)
}

async fn assert_ends_cleanly(mut proxy: Proxy) {
    proxy.signal(Signal::SIGTERM);
    let status = proxy.ended().await;
    assert!(status.success(), "{status}: {}", proxy.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_version_of_http_is_served_by_alpn() {
    let made = DevCert::new();
    let (_simulator, proxy) = start(&made, vec![]).await;
    let address = proxy.tls_address().await;
    assert_eq!(proxy.address, address, "the only port speaks TLS");
    assert_eq!(proxy.stderr(), "", "nothing to complain of");
    for (alpn, expected) in [
        (&b"\x02h2\x08http/1.1"[..], Some(&b"h2"[..])),
        (b"\x08http/1.1\x02h2", Some(b"h2")),
        (b"\x02h2", Some(b"h2")),
        (b"\x08http/1.1", Some(b"http/1.1")),
        (b"\x06spdy/3", None),
        (b"", None),
    ] {
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let client = Client { alpn, version: Some(version), ..made.client() };
            let stream = client.connect(address).await;
            assert_eq!(stream.ssl().selected_alpn_protocol(), expected);
            assert_eq!(stream.ssl().version2(), Some(version));
            let http = http_of(&stream);
            let mut connection = Connection::over(stream, http).await;
            for asked in [
                Asked::converse(MODEL),
                Asked::get("/health/liveliness"),
                Asked::get("/v1/models"),
                Asked::get("/key/list"),
                Asked::converse("/bedrock/model/nova/converse-stream"),
                Asked::converse(MODEL),
            ] {
                let answer = connection.call(&asked).await;
                assert_eq!((answer.status, answer.broke.as_ref()), (200, None), "{} {answer:?}", asked.path);
            }
        }
    }
    for old in [SslVersion::TLS1, SslVersion::TLS1_1] {
        assert!(Client { version: Some(old), ..made.client() }.try_connect(address).await.is_err(), "{old:?}");
    }
    let metrics = made.client().metrics(address).await;
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap();
    let days = (metrics.sum(EXPIRES, &[]) - now) / 86_400;
    assert!((395..=397).contains(&days), "{days}");
    assert_ends_cleanly(proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_speak_no_tls_are_let_go_and_others_served() {
    let made = DevCert::new();
    let (_simulator, proxy) = start(&made, vec![]).await;
    let address = proxy.tls_address().await;
    let get = &b"GET /health/liveliness HTTP/1.1\r\nhost: proxy.test\r\n\r\n"[..];
    let half_a_hello = &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..];
    let long = [&b"POST /bedrock/model/nova/converse HTTP/1.1\r\nx-a: "[..], &[b'a'; 10_000]].concat();
    for (bytes, finish) in [
        (get, false),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", false),
        (&long, false),
        (b"\0\xff\0\xff\0\xff\0\xff", false),
        (half_a_hello, true),
        (b"", true),
    ] {
        let mut raw = Raw::open(address).await;
        raw.write(bytes).await;
        if finish {
            raw.finish_writing().await;
        }
        let end = timeout(DEADLINE, raw.end()).await.expect("the connection stays open");
        assert_eq!(end, End::Closed, "{bytes:?}");
        // At most an alert of TLS; never an answer in HTTP, and nothing of what was sent.
        assert!(raw.unread().is_empty() || raw.unread().starts_with(b"\x15\x03"), "{:?}", raw.unread());
    }
    assert_eq!(made.client().call(address, &Asked::converse(MODEL)).await.status, 200);
    assert_eq!(proxy.records_once(1).await.len(), 1, "no request was read in the clear");
    assert!(!proxy.stderr().contains("handshake"), "{}", proxy.stderr());
    assert_ends_cleanly(proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_port_for_tls_the_other_stays_plain() {
    let made = DevCert::new();
    let (_simulator, proxy) = start(&made, vec!["--ssl-port", "0"]).await;
    let address = proxy.tls_address().await;
    let said: Vec<String> = proxy.stdout().lines().map(str::to_owned).collect();
    assert_eq!(said, [format!("RUNNING on http://{}", proxy.address), format!("RUNNING on https://{address}")]);
    assert_ne!(proxy.address.port(), address.port());
    for http in [Http::One, Http::Two] {
        let answer = Connection::open(proxy.address, http).await.call(&Asked::converse(MODEL)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(made.client().call(address, &Asked::converse(MODEL)).await.status, 200);
    // TLS on the plain port is no request.
    assert!(made.client().try_connect(proxy.address).await.is_err());
    proxy.assert_serves(MODEL).await;
    assert_ends_cleanly(proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_shown_while_no_request_fails() {
    let made = DevCert::new();
    let (_simulator, proxy) = start(&made, vec![]).await;
    let address = proxy.tls_address().await;
    let (old, anyone) = (made.client(), Client { ca: None, ..made.client() });
    let before = shown(&old.connect(address).await);

    // Requests on kept connections and on new ones, all the time.
    let (stop, calls, handshakes) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let load = (0..4).map(|number| {
        let (client, stop) = (anyone.clone(), Arc::clone(&stop));
        let (calls, handshakes) = (Arc::clone(&calls), Arc::clone(&handshakes));
        tokio::spawn(async move {
            let client = Client { alpn: if number < 2 { b"\x02h2" } else { b"\x08http/1.1" }, ..client };
            let mut kept: Option<Connection> = None;
            while !stop.load(Ordering::Relaxed) {
                let keeps = number % 2 == 0;
                let mut connection = if let Some(connection) = kept.take() {
                    connection
                } else {
                    let stream = client.connect(address).await;
                    handshakes.fetch_add(1, Ordering::Relaxed);
                    let http = http_of(&stream);
                    Connection::over(stream, http).await
                };
                let answer = connection.call(&Asked::converse(MODEL)).await;
                assert_eq!((answer.status, answer.broke), (200, None));
                calls.fetch_add(1, Ordering::Relaxed);
                if keeps {
                    kept = Some(connection);
                }
            }
        })
    });
    let load: Vec<_> = load.collect();
    // A stream that is under way meanwhile.
    let mut streaming = Connection::over(old.connect(address).await, Http::Two).await;
    let stream = streaming.begin(&Asked::converse("/bedrock/model/nova/converse-stream")).await;

    for round in 1..=2 {
        made.make(&["--renew"]);
        anyone.reloads(address, "ok", round).await;
        let then = calls.load(Ordering::Relaxed);
        eventually("calls after the change", || (calls.load(Ordering::Relaxed) > then + 20).then_some(())).await;
        // Its authority is the new one, so whoever trusts that takes it; the one of before does not.
        let after = shown(&made.client().connect(address).await);
        assert_ne!(after, before);
    }
    let answer = timeout(DEADLINE, whole(stream)).await.expect("the stream does not end");
    assert_eq!((answer.status, answer.broke), (200, None));
    assert_eq!(streaming.call(&Asked::converse(MODEL)).await.status, 200, "its connection has the first certificate");

    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.expect("a request failed");
    }
    println!("{} calls, {} handshakes", calls.load(Ordering::Relaxed), handshakes.load(Ordering::Relaxed));
    assert_eq!(anyone.metrics(address).await.sum(RELOADS, &[("result", "failed")]), 0);
    assert_ends_cleanly(proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_used_changes_nothing_and_is_told() {
    let made = DevCert::new();
    let (_simulator, proxy) = start(&made, vec![]).await;
    let address = proxy.tls_address().await;
    let client = made.client();
    let before = shown(&client.connect(address).await);
    let expires = client.metrics(address).await.sum(EXPIRES, &[]);

    let other = DevCert::new();
    fs::copy(other.path("key.pem"), made.path("key.pem")).unwrap();
    client.reloads(address, "failed", 1).await;
    fs::write(made.path("cert.pem"), "nothing").unwrap();
    client.reloads(address, "failed", 2).await;
    fs::remove_file(made.path("cert.pem")).unwrap();
    client.reloads(address, "failed", 3).await;
    assert_eq!(shown(&client.connect(address).await), before);
    let metrics = client.metrics(address).await;
    assert_eq!((metrics.sum(RELOADS, &[("result", "ok")]), metrics.sum(EXPIRES, &[])), (0, expires));
    let log = proxy.stderr();
    for told in ["does not belong to the certificate", "holds no PEM certificate", "cert.pem cannot be read"] {
        assert!(log.contains(told), "{told} in {log}");
    }

    // Authority and all, so that the client trusts it.
    fs::copy(other.path("ca.pem"), made.path("ca.pem")).unwrap();
    fs::copy(other.path("cert.pem"), made.path("cert.pem")).unwrap();
    Client { ca: None, ..client }.reloads(address, "ok", 1).await;
    assert_ne!(shown(&made.client().connect(address).await), before);
    assert_ends_cleanly(proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_shows_the_certificate_of_other_files_and_follows_them() {
    let (made, other) = (DevCert::new(), DevCert::new());
    let files = |of: &DevCert| {
        let path = |name| of.path(name).to_str().unwrap().to_owned();
        let (cert, key) = (path("cert.pem"), path("key.pem"));
        let rest = format!("general_settings: {{ssl_certfile_path: {cert:?}, ssl_keyfile_path: {key:?}}}");
        config(&[Entry::new("nova", "bedrock/us.amazon.nova-pro-v1:0")], &rest)
    };
    let simulator = simulator().await;
    let text = files(&made);
    let proxy = Proxy::start(Start { config: Some(&text), variables: variables(&simulator), ..Start::default() });
    let address = proxy.tls_address().await;
    let before = shown(&made.client().connect(address).await);
    proxy.configure(&files(&other));
    let answer = made.client().call(address, &Asked::post("/config/reload", "")).await;
    assert_eq!((answer.status, &answer.json()["result"]), (200, &"applied".into()), "{answer:?}");
    let after = shown(&other.client().connect(address).await);
    assert_ne!(after, before);
    assert!(made.client().try_connect(address).await.is_err(), "its authority is another");

    other.make(&["--renew"]);
    Client { ca: None, ..other.client() }.reloads(address, "ok", 2).await;
    assert_ne!(shown(&other.client().connect(address).await), after);
    let unchanged = other.client().call(address, &Asked::post("/config/reload", "")).await;
    assert_eq!(unchanged.json()["result"], "unchanged", "{unchanged:?}");
    assert_ends_cleanly(proxy).await;
}

#[test]
fn check_and_a_start_name_the_file_that_is_wrong() {
    let made = DevCert::new();
    let (cert, key) = (made.path("cert.pem"), made.path("key.pem"));
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let base = [("AWS_REGION", "us-east-1")];
    let good =
        run_to_end(&["check", "--ssl_certfile_path", cert, "--ssl_keyfile_path", key, "--ssl_port", "4443"], &base);
    let said = String::from_utf8(good.stdout).unwrap();
    assert!(good.status.success() && said.contains("port 4443 TLS with ") && said.contains(cert), "{said}");
    fs::write(key, "nothing").unwrap();
    for command in [&["check"][..], &[]] {
        let arguments = [command, &["--port", "0", "--ssl-certfile-path", cert, "--ssl-keyfile-path", key]].concat();
        let bad = run_to_end(&arguments, &base);
        let said = String::from_utf8(bad.stderr).unwrap();
        assert_eq!(bad.status.code(), Some(1), "{said}");
        let told = format!("command line --ssl-keyfile-path: `{key}` holds no PEM private key");
        assert!(said.contains(&told), "{told} in {said}");
    }
}
