//! The end of a process and its succession by another: what was accepted is answered, what was reserved is settled, and
//! nobody who calls meanwhile notices.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use bedrock_sim::eventstream::Frame;
use hyper::body::Incoming;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{
    Asked, CLAUDE, CLAUDE_STREAM, Connection, DEADLINE, Entry, Http, Key, Plan, Proxy, Rig, SONNET, Stand, Start,
    Store, TemporaryDirectory, TemporaryFile, config, converse, dollars, eventually, frame_header, frames, nano,
    on_both_stores, read_at_least, rule, rules, run_to_end, simulator, variables, whole,
};

on_both_stores! {
    a_stop_under_load_finishes_and_settles_what_was_accepted,
    what_is_unfinished_at_the_deadline_is_ended_as_modelled_and_settled,
    processes_succeed_each_other_under_load_without_a_failed_request,
}

/// What a call costs with [`usage`].
const COST: u64 = 780_000;

fn usage() -> Value {
    json!({ "usage": { "input": 10, "output": 50 } })
}

/// Clients that call one after the other on kept connections. Who is told that a connection is over opens another, as
/// long as the load is to go on over an end of the process.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    async fn start(address: SocketAddr, asked: &Asked, reopens: bool) -> Self {
        let load = Self { stop: Arc::default(), served: Arc::default(), clients: Vec::new() };
        let clients = [Http::One, Http::One, Http::One, Http::One, Http::Two, Http::Two].map(|http| {
            let client = Client { address, http, asked: asked.clone(), reopens };
            tokio::spawn(client.run(Arc::clone(&load.stop), Arc::clone(&load.served)))
        });
        let load = Self { clients: clients.into(), ..load };
        load.more(50).await;
        load
    }

    /// Waits until so many more calls were served.
    async fn more(&self, count: u64) {
        let goal = self.served.load(Ordering::Relaxed) + count;
        eventually("more calls", || (self.served.load(Ordering::Relaxed) >= goal).then_some(())).await;
    }

    /// Waits until the clients have ended; how many calls were served, and what went wrong.
    async fn ended(self) -> (u64, Vec<String>) {
        let mut wrong = Vec::new();
        for client in self.clients {
            wrong.extend(client.await.unwrap());
        }
        (self.served.load(Ordering::Relaxed), wrong)
    }
}

struct Client {
    address: SocketAddr,
    http: Http,
    asked: Asked,
    reopens: bool,
}

impl Client {
    async fn run(self, stop: Arc<AtomicBool>, served: Arc<AtomicU64>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut kept: Option<Connection> = None;
        let mut opened = false;
        while !stop.load(Ordering::Relaxed) && wrong.is_empty() {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None if opened && !self.reopens => break,
                None => match TcpStream::connect(self.address).await {
                    Ok(stream) => Connection::over(stream, self.http).await,
                    Err(error) => {
                        wrong.push(format!("cannot connect: {error}"));
                        break;
                    }
                },
            };
            opened = true;
            let response = match connection.try_begin(&self.asked).await {
                Ok(response) => response,
                // The connection had been ended in order; nothing was sent.
                Err(error) if error.is_canceled() || error.is_closed() => continue,
                Err(error) => {
                    wrong.push(format!("{:?}: {error:?}", self.http));
                    continue;
                }
            };
            let ends = response.headers().get("connection").is_some_and(|value| value == "close");
            let answer = whole(response).await;
            if answer.status != 200 || answer.broke.is_some() {
                wrong.push(format!("{answer:?}"));
            } else {
                served.fetch_add(1, Ordering::Relaxed);
            }
            kept = (!ends).then_some(connection);
        }
        wrong
    }
}

/// A stream that has begun and pauses.
struct Paused {
    head: http::response::Parts,
    body: Incoming,
    seen: Vec<u8>,
    _connection: Connection,
}

impl Paused {
    async fn begin(address: SocketAddr, http: Http, key: &Key) -> Self {
        let mut connection = Connection::open(address, http).await;
        let asked = converse("nova", "converse-stream", 100).by(&key.secret);
        let (head, mut body) = connection.begin(&asked).await.into_parts();
        assert_eq!(head.status, 200);
        let seen = read_at_least(&mut body, 1).await;
        Self { head, body, seen, _connection: connection }
    }

    /// Its frames once it has ended, whole ones only.
    async fn frames(mut self) -> Vec<Frame> {
        let rest = whole(hyper::Response::from_parts(self.head, self.body)).await;
        assert_eq!(rest.broke, None, "the stream was cut");
        self.seen.extend_from_slice(&rest.body);
        let (frames, left) = frames(&self.seen);
        assert_eq!(left, 0);
        frames
    }
}

fn exception(frames: &[Frame]) -> Option<&str> {
    frames.iter().find_map(|frame| frame_header(frame, ":exception-type"))
}

/// Streams of `nova` pause so long in their middle; calls of `claude` do not.
fn pausing(ms: u64) -> Value {
    json!([
        { "match": { "model": "*nova*" }, "fault": { "kind": "stall_mid_stream", "after_frames": 2, "ms": ms }, "frames": 6 },
        usage(),
    ])
}

async fn refused(address: SocketAddr) {
    eventually("the port to close", || std::net::TcpStream::connect(address).is_err().then_some(())).await;
}

async fn a_stop_under_load_finishes_and_settles_what_was_accepted(store: Store) {
    let mut stand = Plan::new(store).start().await;
    stand.simulator.behave(rules(&pausing(1_000)));
    let key = stand.key(&json!({ "max_budget": 100 })).await;
    let address = stand.proxy().address;
    let load = Load::start(address, &converse("claude", "converse", 100).by(&key.secret), false).await;
    let streams = [Paused::begin(address, Http::One, &key).await, Paused::begin(address, Http::Two, &key).await];
    stand.proxy().signal(Signal::SIGTERM);
    refused(address).await;
    let (served, wrong) = load.ended().await;
    assert_eq!(wrong, [""; 0], "what was accepted is answered\n{}", stand.proxy().stderr());
    for stream in streams {
        assert_eq!(exception(&stream.frames().await), None);
    }
    let status = stand.proxies[0].ended().await;
    assert_eq!(status.code(), Some(0), "{}", stand.proxy().stderr());
    println!("{store:?}: {served} calls served over the stop");
    stand.start_again(0);
    let streamed = 2 * nova_cost();
    stand.assert_spent(&key, served * COST + streamed).await;
    stand.assert_sound().await;
}

/// As [`COST`], of `nova`.
const fn nova_cost() -> u64 {
    10 * 800 + 50 * 3_200
}

async fn what_is_unfinished_at_the_deadline_is_ended_as_modelled_and_settled(store: Store) {
    let mut stand = Plan::new(store).rest("general_settings:\n  shutdown_timeout: 1\n").start().await;
    stand.simulator.behave(rules(&json!([
        { "match": { "operation": "Converse" }, "fault": { "kind": "stall_before_header" } },
        { "fault": { "kind": "stall_mid_stream", "after_frames": 2 } },
    ])));
    let key = stand.key(&json!({ "max_budget": 100 })).await;
    let address = stand.proxy().address;
    let streams = [Paused::begin(address, Http::One, &key).await, Paused::begin(address, Http::Two, &key).await];
    let waiting = tokio::spawn({
        let asked = converse("claude", "converse", 100).by(&key.secret);
        async move { Connection::open(address, Http::One).await.call(&asked).await }
    });
    stand.forwarded(3).await;
    stand.proxy().signal(Signal::SIGTERM);
    for stream in streams {
        let frames = stream.frames().await;
        assert_eq!(exception(&frames), Some("serviceUnavailableException"));
    }
    waiting.await.unwrap().assert_error(503, "ServiceUnavailableException");
    let status = stand.proxies[0].ended().await;
    assert_eq!(status.code(), Some(0), "{}", stand.proxy().stderr());
    let records = stand.proxy().records();
    assert_eq!(records.iter().filter(|record| record["reason"] == "stopping").count(), 3, "{records:?}");
    stand.start_again(0);
    assert!(stand.spent(&key).await > 0, "what was begun is charged");
    stand.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_is_off_before_the_port_closes_and_a_second_signal_ends_the_wait() {
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let rest = "general_settings:\n  shutdown_delay: 600\n  shutdown_timeout: 600\n";
        let model = "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0";
        let mut rig = Rig::with(&[Entry::new("claude", model)], rest).await;
        assert_eq!(rig.proxy.call(&Asked::get("/health/readiness").bare()).await.status, 200);
        rig.simulator.add_rule(rule(json!({ "fault": { "kind": "stall_mid_stream", "after_frames": 2 } })));
        let mut connection = Connection::open(rig.proxy.address, Http::One).await;
        let (head, mut body) = connection.begin(&Asked::converse(CLAUDE_STREAM)).await.into_parts();
        let mut seen = read_at_least(&mut body, 1).await;
        rig.proxy.signal(Signal::SIGTERM);
        eventually("the stop", || rig.proxy.stderr().contains("stopping").then_some(())).await;
        let readiness = rig.proxy.call(&Asked::get("/health/readiness").bare()).await;
        assert_eq!((readiness.status, readiness.json()["status"].as_str()), (503, Some("stopping")), "{readiness:?}");
        rig.simulator.behave(rules(&json!([])));
        rig.proxy.assert_serves(CLAUDE).await;
        rig.proxy.signal(second);
        let rest = whole(hyper::Response::<Incoming>::from_parts(head, body)).await;
        seen.extend_from_slice(&rest.body);
        assert_eq!(exception(&frames(&seen).0), Some("serviceUnavailableException"), "{second}");
        assert_eq!(rig.proxy.ended().await.code(), Some(0), "{second}: {}", rig.proxy.stderr());
    }
}

async fn processes_succeed_each_other_under_load_without_a_failed_request(store: Store) {
    const UPGRADES: u64 = 3;
    let mut stand = Plan::new(store).start().await;
    stand.simulator.behave(rules(&pausing(700)));
    let key = stand.key(&json!({ "max_budget": 100 })).await;
    let address = stand.proxy().address;
    let load = Load::start(address, &converse("claude", "converse", 100).by(&key.secret), true).await;
    let (mut old, mut streams) = (Vec::new(), Vec::new());
    for http in [Http::One, Http::Two, Http::One] {
        streams.push(Paused::begin(address, http, &key).await);
        old.push(stand.succeed(0));
        assert_eq!(stand.proxy().address, address, "the port is the same");
        load.more(50).await;
    }
    for mut old in old {
        let status = old.ended().await;
        assert_eq!(status.code(), Some(0), "{}", old.stderr());
    }
    for stream in streams {
        assert_eq!(exception(&stream.frames().await), None);
    }
    load.more(50).await;
    load.stop.store(true, Ordering::Relaxed);
    let (served, wrong) = load.ended().await;
    assert_eq!(wrong, [""; 0], "{}", stand.proxy().stderr());
    println!("{store:?}: {served} calls served over {UPGRADES} upgrades");
    stand.assert_spent(&key, served * COST + UPGRADES * nova_cost()).await;
    stand.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_fails_leaves_the_one_that_serves_as_it_was() {
    let stand = Plan::new(Store::Embedded).start().await;
    stand.simulator.behave(rules(&pausing(1_000)));
    let key = stand.key(&json!({ "max_budget": 100 })).await;
    let asked = converse("claude", "converse", 100).by(&key.secret);
    let load = Load::start(stand.proxy().address, &asked, true).await;
    let stream = Paused::begin(stand.proxy().address, Http::One, &key).await;
    let file = TemporaryFile::new("next.yaml", stand.config());
    let state = stand.state(0).to_str().unwrap();
    let next = |config: &str, port: &str| {
        let output = run_to_end(
            &["--host", "127.0.0.1", "--port", port, "--upgrade", "--config", config],
            &[("DHEERA_AI_MASTER_KEY", crate::support::MASTER_KEY), ("DHEERA_AI_STORE_PATH", state)],
        );
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    // It cannot be read; it wants a port that is taken; it fails after it was given the store.
    next("/nonexistent/config.yaml", "0");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let told = next(file.path(), &taken.local_addr().unwrap().port().to_string());
    assert!(told.contains("cannot listen"), "{told}");
    let full = Full::begin(&stand).await;
    std::fs::write(stand.state(0).join("journal-1"), "no directory").unwrap();
    let told = next(file.path(), "0");
    assert!(told.contains("journal"), "{told}");
    std::fs::remove_file(stand.state(0).join("journal-1")).unwrap();
    full.assert_stays_so(&stand).await;
    let says = || (stand.proxy().stderr().matches("did not become ready").count() == 2).then_some(());
    eventually("what the old one says", says).await;
    load.more(50).await;
    load.stop.store(true, Ordering::Relaxed);
    let (served, wrong) = load.ended().await;
    assert_eq!(wrong, [""; 0], "{}", stand.proxy().stderr());
    assert_eq!(exception(&stream.frames().await), None);
    stand.assert_spent(&key, served * COST + nova_cost()).await;
    full.end(&stand).await;
    stand.assert_sound().await;
}

/// A key whose budget has room for the one stream that is open, and no other.
struct Full {
    key: Key,
    stream: Paused,
}

impl Full {
    async fn begin(stand: &Stand) -> Self {
        stand.simulator.behave(rules(&pausing(5_000)));
        let ample = stand.key(&json!({ "max_budget": 100 })).await;
        let stream = Paused::begin(stand.proxy().address, Http::One, &ample).await;
        let reserved = nano(&stand.info(&ample).await["reserved"]);
        drop(stream);
        assert!(reserved > 0);
        let key = stand.key(&json!({ "max_budget": dollars(reserved * 3 / 2) })).await;
        let stream = Paused::begin(stand.proxy().address, Http::One, &key).await;
        Self { key, stream }
    }

    async fn assert_stays_so(&self, stand: &Stand) {
        let second = stand.call(&self.key, &converse("nova", "converse-stream", 100)).await;
        assert_eq!(second.status, 400, "{second:?}\n{}", stand.proxy().stderr());
    }

    async fn end(self, stand: &Stand) {
        assert_eq!(exception(&self.stream.frames().await), None);
        stand.assert_spent(&self.key, nova_cost()).await;
    }
}

/// Where roles are assumed. It answers when it is told to.
struct Sts {
    listener: TcpListener,
}

impl Sts {
    async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// A configuration whose only deployment needs an answer.
    fn config(&self) -> String {
        let endpoint = format!("http://{}", self.listener.local_addr().unwrap());
        let role = [("aws_role_name", "arn:aws:iam::123456789012:role/tests"), ("aws_sts_endpoint", &endpoint)];
        config(&[Entry { params: &role, ..Entry::new("claude", SONNET) }], "")
    }

    /// Waits until it is asked: by a process that has everything else.
    async fn asked(&self) -> TcpStream {
        let asked = tokio::time::timeout(DEADLINE, self.listener.accept()).await;
        asked.expect("STS is never asked").unwrap().0
    }

    async fn answer(&self, mut asked: TcpStream) {
        let body = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
                    <Credentials><AccessKeyId>ASIATESTS</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
                    <SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
                    </AssumeRoleResult></AssumeRoleResponse>";
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: {}\r\n\r\n", body.len());
        asked.write_all((head + body).as_bytes()).await.unwrap();
        // Held until the client has read it.
        drop(asked.read_to_end(&mut Vec::new()).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_cannot_serve_yet_gets_no_connection_and_when_it_is_killed_nothing_that_is_set_aside_is_lost() {
    const CALLS: u64 = 40;
    let (stand, sts) = (Plan::new(Store::Embedded).start().await, Sts::new().await);
    let full = Full::begin(&stand).await;
    let key = stand.key(&json!({ "max_budget": 100 })).await;
    let mut next = stand.begin_to_succeed(0, &sts.config());
    let _asked = sts.asked().await;
    for _ in 0..CALLS {
        let answer = stand.call(&key, &converse("claude", "converse", 100)).await;
        assert_eq!(answer.status, 200, "{answer:?}\n{}", next.stderr());
    }
    full.assert_stays_so(&stand).await;
    next.signal(Signal::SIGKILL);
    next.ended().await;
    full.assert_stays_so(&stand).await;
    full.end(&stand).await;
    stand.assert_spent(&key, CALLS * COST).await;
    stand.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_predecessor_is_killed_while_it_waits_for_credentials_serves_as_soon_as_it_can() {
    let (mut stand, sts) = (Plan::new(Store::Embedded).start().await, Sts::new().await);
    let address = stand.proxy().address;
    let mut next = stand.begin_to_succeed(0, &sts.config());
    let asked = sts.asked().await;
    stand.proxy().signal(Signal::SIGKILL);
    stand.proxies[0].ended().await;
    let (_, ()) = tokio::join!(tokio::time::timeout(DEADLINE, sts.answer(asked)), async {
        next.running().await;
        assert_eq!(next.address, address, "the port is the same");
        let readiness = next.call(&Asked::get("/health/readiness").bare()).await;
        assert_eq!(readiness.status, 200, "{readiness:?}");
        next.signal(Signal::SIGTERM);
        assert_eq!(next.ended().await.code(), Some(0), "{}", next.stderr());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_without_a_process_that_serves_says_so() {
    let state = TemporaryDirectory::new("nobody");
    let output = run_to_end(
        &["--host", "127.0.0.1", "--port", "0", "--upgrade"],
        &[("DHEERA_AI_MASTER_KEY", crate::support::MASTER_KEY), ("DHEERA_AI_STORE_PATH", state.path())],
    );
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("upgrade.sock") && told.contains("without --upgrade"), "{told}");
}

/// What a service manager is told, a message at a time.
struct Manager {
    /// Read all the time: who tells a manager that does not read waits.
    messages: mpsc::Receiver<String>,
    _directory: TemporaryDirectory,
    path: String,
}

impl Manager {
    fn new() -> Self {
        let directory = TemporaryDirectory::new("notify");
        let path = Path::new(directory.path()).join("notify").to_str().unwrap().to_owned();
        let socket = UnixDatagram::bind(&path).unwrap();
        let (says, messages) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = socket.recv(&mut buffer) {
                if says.send(String::from_utf8(buffer[..count].to_vec()).unwrap()).is_err() {
                    break;
                }
            }
        });
        Self { messages, _directory: directory, path }
    }

    /// The next message that has this line.
    fn told(&self, line: &str) -> String {
        self.until(line).pop().unwrap()
    }

    /// All messages up to the next that has this line.
    fn until(&self, line: &str) -> Vec<String> {
        let mut messages = Vec::new();
        loop {
            let message = self.messages.recv_timeout(DEADLINE);
            messages.push(message.unwrap_or_else(|error| panic!("never told {line}: {error}")));
            if messages.last().is_some_and(|message| message.lines().any(|own| own == line)) {
                return messages;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_stopped_before_it_serves_stops_alone() {
    let (simulator, manager, state) = (simulator().await, Manager::new(), TemporaryDirectory::new("systemd"));
    let sts = Sts::new().await;
    let (serves, waits) = (config(&[Entry::new("claude", SONNET)], ""), sts.config());
    let start = |config, arguments| {
        let mut variables = variables(&simulator);
        variables.push(("NOTIFY_SOCKET", manager.path.clone()));
        variables.push(("DHEERA_AI_STORE_PATH", state.path().to_owned()));
        Start { config: Some(config), variables, arguments, ..Start::default() }
    };
    let mut first = Proxy::start(start(serves.as_str(), Vec::new()));
    manager.told("READY=1");
    let mut second = Proxy::start_waiting(start(waits.as_str(), vec!["--upgrade"]));
    let _asked = sts.asked().await;
    second.signal(Signal::SIGTERM);
    assert_eq!(second.ended().await.code(), Some(0), "{}", second.stderr());
    first.assert_serves(CLAUDE).await;
    first.signal(Signal::SIGHUP);
    let said = manager.until("RELOADING=1");
    assert!(!said.iter().any(|message| message.contains("STOPPING=1")), "{said:?}");
    first.signal(Signal::SIGTERM);
    manager.told("STOPPING=1");
    assert_eq!(first.ended().await.code(), Some(0), "{}", first.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_is_told_of_the_start_the_succession_and_the_stop_and_that_all_is_well() {
    let (simulator, manager, state) = (simulator().await, Manager::new(), TemporaryDirectory::new("systemd"));
    let text = config(&[Entry::new("claude", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0")], "");
    let start = |arguments: Vec<&'static str>, watchdog: bool| {
        let mut variables = variables(&simulator);
        variables.push(("NOTIFY_SOCKET", manager.path.clone()));
        variables.push(("DHEERA_AI_STORE_PATH", state.path().to_owned()));
        if watchdog {
            variables.push(("WATCHDOG_USEC", "200000".to_owned()));
        }
        Proxy::start(Start { config: Some(&text), variables, arguments, ..Start::default() })
    };
    let mut first = start(Vec::new(), true);
    manager.told("READY=1");
    for _ in 0..3 {
        manager.told("WATCHDOG=1");
    }
    // It is not told itself how often; it has to hear of it from the first.
    let mut second = start(vec!["--upgrade"], false);
    manager.told(&format!("MAINPID={}", second.pid()));
    assert_eq!(first.ended().await.code(), Some(0), "{}", first.stderr());
    manager.told("READY=1");
    for _ in 0..3 {
        manager.told("WATCHDOG=1");
    }
    second.assert_serves(CLAUDE).await;
    second.signal(Signal::SIGHUP);
    assert!(manager.told("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.told("READY=1");
    second.signal(Signal::SIGTERM);
    manager.told("STOPPING=1");
    assert_eq!(second.ended().await.code(), Some(0), "{}", second.stderr());
}
