//! What the suites share: a proxy process, a simulator in this process, clients, and ways to wait for something to
//! become true. Nothing here waits for time to pass.

mod client;
mod direct;
pub mod metrics;
mod proxy;
mod raw;
#[path = "../../store/redis_server.rs"]
#[allow(dead_code, reason = "the tests of the stores use all of it")]
pub mod redis_server;
mod stand;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bedrock_sim::eventstream::{self, Frame, Value as HeaderValue};
use bedrock_sim::{Behaviour, Credential, Options, Rule, Running, Simulator};
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use client::{Answer, Asked, Connection, Http, call, read_at_least, whole};
pub use direct::direct;
pub use proxy::{Proxy, Start, TemporaryDirectory, TemporaryFile, run_to_end};
pub use raw::{End, Raw};
pub(crate) use stand::on_both_stores;
pub use stand::{Key, Plan, SONNET, Stand, Store, converse, dollars, header_nano, nano, served, told};

/// Nothing takes so long, however busy the machine is.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub const MASTER_KEY: &str = "sk-master-tests-0123456789abcdef";
pub const ACCESS_KEY: &str = "AKIDTESTSACCESSKEY01";
pub const SECRET_KEY: &str = "tests/only+secret=access-key-canary-0001";
pub const BEARER_TOKEN: &str = "ABSKdGVzdHMtb25seS1iZWFyZXItdG9rZW4=";

/// Waits until `condition` gives something.
pub async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "in vain waited for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A file of the project.
pub fn project_file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// How the simulator is run here.
pub fn options() -> Options {
    let credential = Credential {
        access_key_id: ACCESS_KEY.to_owned(),
        secret_access_key: SECRET_KEY.to_owned(),
        session_token: None,
    };
    Options {
        credentials: vec![credential],
        bearer_tokens: vec![BEARER_TOKEN.to_owned()],
        prices: Some(project_file("conf/prices.yaml")),
        ..Options::default()
    }
}

pub async fn simulator() -> Running {
    Simulator::start(options()).await.unwrap()
}

/// Rules as tests write them.
pub fn rules(rules: &Value) -> Behaviour {
    serde_json::from_value(json!({ "rules": rules })).unwrap()
}

pub fn rule(rule: Value) -> Rule {
    serde_json::from_value(rule).unwrap()
}

/// The variables with which a proxy calls `simulator` for everything.
pub fn variables(simulator: &Running) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", simulator.url()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ]
}

/// One deployment of a configuration file: model name, model id, and further lines of its parameters.
pub struct Entry<'a> {
    pub name: &'a str,
    pub model: &'a str,
    pub params: &'a [(&'a str, &'a str)],
    pub info: &'a [(&'a str, &'a str)],
}

impl<'a> Entry<'a> {
    pub const fn new(name: &'a str, model: &'a str) -> Self {
        Self { name, model, params: &[], info: &[] }
    }
}

/// A configuration of these entries, and what stands below the list.
pub fn config(entries: &[Entry<'_>], rest: &str) -> String {
    let mut lines = vec!["model_list:".to_owned()];
    for entry in entries {
        lines.push(format!("  - model_name: {:?}\n    dheera_ai_params:\n      model: {:?}", entry.name, entry.model));
        let own: BTreeMap<_, _> = entry.params.iter().copied().collect();
        let defaults = [
            ("aws_region_name", "us-east-1"),
            ("aws_access_key_id", ACCESS_KEY),
            ("aws_secret_access_key", SECRET_KEY),
        ];
        let missing = defaults.into_iter().filter(|(name, _)| !own.contains_key(name));
        lines.extend(missing.chain(own.clone()).map(|(name, value)| format!("      {name}: {value:?}")));
        if !entry.info.is_empty() {
            lines.push("    model_info:".to_owned());
        }
        lines.extend(entry.info.iter().map(|(name, value)| format!("      {name}: {value:?}")));
    }
    lines.join("\n") + "\n" + rest
}

/// A proxy in front of a simulator.
pub struct Rig {
    pub proxy: Proxy,
    pub simulator: Running,
}

/// The path by which most tests call.
pub const CLAUDE: &str = "/bedrock/model/claude/converse";
pub const CLAUDE_STREAM: &str = "/bedrock/model/claude/converse-stream";

impl Rig {
    /// One deployment, `claude`.
    pub async fn start() -> Self {
        Self::with(&[Entry::new("claude", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0")], "").await
    }

    pub async fn with(entries: &[Entry<'_>], rest: &str) -> Self {
        let simulator = simulator().await;
        let text = config(entries, rest);
        let proxy = Proxy::start(Start { config: Some(&text), variables: variables(&simulator), ..Start::default() });
        Self { proxy, simulator }
    }

    /// Requests of ours that reached the simulator.
    pub fn forwarded(&self) -> u64 {
        self.simulator.counters().requests
    }
}

/// The frames of an event stream, and the bytes behind the last whole one.
pub fn frames(bytes: &[u8]) -> (Vec<Frame>, usize) {
    let mut buffer = BytesMut::from(bytes);
    let mut frames = Vec::new();
    while let Ok(Some(frame)) = eventstream::decode(&mut buffer) {
        frames.push(frame);
    }
    (frames, buffer.len())
}

/// A text header of a frame.
pub fn frame_header<'f>(frame: &'f Frame, name: &str) -> Option<&'f str> {
    match frame.header(name) {
        Some(HeaderValue::Text(text)) => Some(text),
        _ => None,
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// An address on which nobody listens, for as long as the handle lives: connecting is refused.
pub struct Refusing {
    pub address: SocketAddr,
    _socket: tokio::net::TcpSocket,
}

impl Refusing {
    pub fn new() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self { address: socket.local_addr().unwrap(), _socket: socket }
    }
}

/// A frame of a signed request stream around an inner frame: `:date`, and a `:chunk-signature` made with no key.
pub fn signed_frame(inner: &[u8]) -> Bytes {
    let mut headers = vec![5];
    headers.extend_from_slice(b":date");
    headers.push(8);
    headers.extend_from_slice(&1_795_305_600_000_i64.to_be_bytes());
    headers.push(16);
    headers.extend_from_slice(b":chunk-signature");
    headers.push(6);
    headers.extend_from_slice(&32_u16.to_be_bytes());
    headers.extend_from_slice(&[7; 32]);
    let length = |count: usize| u32::try_from(count).unwrap().to_be_bytes();
    let mut frame = [length(16 + headers.len() + inner.len()), length(headers.len())].concat();
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(inner);
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.into()
}
