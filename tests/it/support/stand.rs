//! What tests of keys and budgets stand on: a simulator, a store, proxies that share it, and keys.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use bedrock_sim::Running;
use dheera_ai::types::money::NanoUsd;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::metrics::Metrics;
use super::redis_server::RedisServer;
use super::{
    Answer, Asked, Connection, DEADLINE, Entry, Http, Proxy, Start, TemporaryDirectory, config, eventually, simulator,
    variables,
};

/// Where keys and budgets are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    Embedded,
    Redis,
}

/// Makes two tests of each function: on the embedded store, and on a Redis server of its own.
macro_rules! on_both_stores {
    ($($name:ident),+ $(,)?) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::support::Store::Embedded).await;
                }
            )+
        }
        mod redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::support::Store::Redis).await;
                }
            )+
        }
    };
}
pub(crate) use on_both_stores;

pub const SONNET: &str = "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0";
pub const NOVA: &str = "bedrock/us.amazon.nova-pro-v1:0";

/// A virtual key.
#[derive(Debug, Clone)]
pub struct Key {
    pub secret: String,
    pub id: String,
}

/// How to set up a stand.
pub struct Plan<'a> {
    pub store: Store,
    pub proxies: usize,
    pub entries: Vec<Entry<'a>>,
    /// Of the configuration, below the list of models.
    pub rest: &'a str,
    pub redis_password: Option<&'a str>,
    pub variables: Vec<(&'static str, String)>,
}

impl<'a> Plan<'a> {
    /// One proxy that serves `claude` and `nova`.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            proxies: 1,
            entries: vec![Entry::new("claude", SONNET), Entry::new("nova", NOVA)],
            rest: "",
            redis_password: None,
            variables: Vec::new(),
        }
    }

    pub fn proxies(self, proxies: usize) -> Self {
        Self { proxies, ..self }
    }

    pub fn rest(self, rest: &'a str) -> Self {
        Self { rest, ..self }
    }

    pub async fn start(self) -> Stand {
        let simulator = simulator().await;
        let redis = match self.store {
            Store::Embedded => None,
            Store::Redis => {
                let mut arguments = vec!["--appendonly", "yes", "--appendfsync", "always"];
                arguments.extend(self.redis_password.iter().flat_map(|password| ["--requirepass", password]));
                Some(RedisServer::start(&arguments).await)
            }
        };
        let mut variables = variables(&simulator);
        variables.extend(self.variables);
        if let Some(redis) = &redis {
            let password = self.redis_password.map(|password| format!(":{password}@")).unwrap_or_default();
            variables.push(("REDIS_URL", format!("redis://{password}127.0.0.1:{}", redis.port)));
        }
        let config = config(&self.entries, self.rest);
        let mut stand = Stand {
            proxies: Vec::new(),
            simulator,
            redis,
            config,
            variables,
            stores: Vec::new(),
            turn: AtomicUsize::new(0),
        };
        for _ in 0..self.proxies {
            stand.stores.push(TemporaryDirectory::new("stand"));
            let proxy = stand.run(stand.stores.len() - 1);
            stand.proxies.push(proxy);
        }
        stand
    }
}

/// Everything a test has started. The proxies go first.
pub struct Stand {
    pub proxies: Vec<Proxy>,
    pub simulator: Running,
    pub redis: Option<RedisServer>,
    config: String,
    variables: Vec<(&'static str, String)>,
    stores: Vec<TemporaryDirectory>,
    turn: AtomicUsize,
}

impl Stand {
    fn run(&self, number: usize) -> Proxy {
        self.run_with(number, Vec::new())
    }

    fn run_with(&self, number: usize, arguments: Vec<&str>) -> Proxy {
        Proxy::start(Start { arguments, ..self.start(number, &self.config) })
    }

    fn start<'a>(&self, number: usize, config: &'a str) -> Start<'a> {
        let mut variables = self.variables.clone();
        variables.push(("DHEERA_AI_STORE_PATH", self.stores[number].path().to_owned()));
        Start { config: Some(config), variables, ..Start::default() }
    }

    /// Has another process with another configuration begin to succeed a proxy.
    pub fn begin_to_succeed(&self, number: usize, config: &str) -> Proxy {
        Proxy::start_waiting(Start { arguments: vec!["--upgrade"], ..self.start(number, config) })
    }

    /// Another value of a variable, for proxies that start from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        for (_, old) in self.variables.iter_mut().filter(|(known, _)| *known == name) {
            value.clone_into(old);
        }
    }

    /// Has another process succeed a proxy, and gives the old one, which finishes what it has begun.
    pub fn succeed(&mut self, number: usize) -> Proxy {
        let next = self.run_with(number, vec!["--upgrade"]);
        std::mem::replace(&mut self.proxies[number], next)
    }

    /// Where a proxy keeps its state.
    pub fn state(&self, number: usize) -> &std::path::Path {
        &self.stores[number].0
    }

    /// The configuration of the proxies.
    pub fn config(&self) -> &str {
        &self.config
    }

    pub fn proxy(&self) -> &Proxy {
        &self.proxies[0]
    }

    /// Kills a proxy as the kernel does when memory is short, and starts it again on the same directory.
    pub async fn kill_and_restart(&mut self, number: usize) {
        self.proxies[number].signal(Signal::SIGKILL);
        self.proxies[number].ended().await;
        self.proxies[number] = self.run(number);
    }

    /// Stops a proxy as a service manager does, and starts it again.
    pub async fn restart(&mut self, number: usize) {
        self.proxies[number].signal(Signal::SIGTERM);
        let status = self.proxies[number].ended().await;
        assert!(status.success(), "{status}: {}", self.proxies[number].stderr());
        self.proxies[number] = self.run(number);
    }

    /// Starts a proxy that has ended again.
    pub fn start_again(&mut self, number: usize) {
        self.proxies[number] = self.run(number);
    }

    /// The management API, by the master key.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.proxy().call(&Asked::post(path, body.to_string())).await;
        assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
        answer.json()
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.proxy().call(&Asked::get(path)).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    pub async fn key(&self, fields: &Value) -> Key {
        let made = self.post("/key/generate", fields).await;
        let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("{name} of {made}")).to_owned();
        Key { secret: text("key"), id: text("key_id") }
    }

    pub async fn info(&self, key: &Key) -> Value {
        self.get(&format!("/key/info?key={}", key.id)).await["info"].clone()
    }

    /// What the key has spent of its budget, in nano-dollars, once nothing is reserved any more: what a call cost is
    /// booked a moment after its answer.
    pub async fn spent(&self, key: &Key) -> u64 {
        self.once(key, "nothing reserved", |_| true).await
    }

    /// Asserts what the key has spent, in nano-dollars.
    pub async fn assert_spent(&self, key: &Key, expected: u64) {
        self.once(key, &format!("{expected} spent"), |spent| spent == expected).await;
    }

    async fn once(&self, key: &Key, what: &str, fits: impl Fn(u64) -> bool) -> u64 {
        let deadline = std::time::Instant::now() + DEADLINE;
        loop {
            let info = self.info(key).await;
            let spent = nano(&info["spend"]);
            if nano(&info["reserved"]) == 0 && fits(spent) {
                return spent;
            }
            assert!(std::time::Instant::now() < deadline, "in vain waited for {what}: {info}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// One call with this key, at the proxies in turn.
    pub async fn call(&self, key: &Key, asked: &Asked) -> Answer {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.proxies.len();
        self.proxies[turn].call(&asked.clone().by(&key.secret)).await
    }

    /// What a call costs, by the header of the answer to one that the master key makes.
    pub async fn cost(&self, asked: &Asked) -> u64 {
        let answer = self.proxy().call(asked).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        header_nano(&answer, "x-dheera-ai-response-cost")
    }

    /// The same call so many times at once, on open connections, at the proxies in turn.
    pub async fn burst(&self, key: &Key, asked: &Asked, count: usize) -> Vec<Answer> {
        let asked = asked.clone().by(&key.secret);
        let mut connections = Vec::with_capacity(count);
        for number in 0..count {
            let address = self.proxies[number % self.proxies.len()].address;
            connections.push(Connection::open(address, Http::One).await);
        }
        let calls = connections.into_iter().map(|mut connection| {
            let asked = asked.clone();
            tokio::spawn(async move { connection.call(&asked).await })
        });
        let calls: Vec<_> = calls.collect();
        let mut answers = Vec::with_capacity(count);
        for call in calls {
            answers.push(call.await.unwrap());
        }
        answers
    }

    /// The sum of a metric over all proxies.
    pub async fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let mut sum = 0;
        for proxy in &self.proxies {
            sum += proxy.metrics().await.sum(name, labels);
        }
        sum
    }

    /// Waits until every proxy is idle, has told the store everything and knows of no open lease, as far as its gauges
    /// say, which follow within seconds.
    pub async fn rest(&self) {
        let deadline = std::time::Instant::now() + DEADLINE;
        loop {
            let mut open = Vec::new();
            for (number, proxy) in self.proxies.iter().enumerate() {
                let metrics = proxy.metrics().await;
                open.extend(open_still(&metrics).map(|(name, value)| format!("proxy {number}: {name} {value}")));
            }
            if open.is_empty() {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "no rest: {open:?}\n{}", self.proxy().stderr());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Comes to rest and asserts what must always hold then: nothing is reserved, no bound was too low.
    pub async fn assert_sound(&self) {
        self.rest().await;
        assert_eq!(self.sum("dheera_ai_budget_overrun_nano_usd_total", &[]).await, 0, "a bound was none");
    }

    /// Waits until the simulator is serving so many requests, or has served them.
    pub async fn forwarded(&self, count: u64) {
        eventually(&format!("{count} requests upstream"), || {
            (self.simulator.counters().requests >= count).then_some(())
        })
        .await;
    }
}

fn open_still(metrics: &Metrics) -> impl Iterator<Item = (&'static str, u64)> {
    // The scrape itself is a request in flight.
    let limits = [("dheera_ai_requests_in_flight", 1), ("dheera_ai_journal_backlog", 0), ("dheera_ai_leases_open", 0)];
    let sums = limits.map(|(name, limit)| (name, metrics.sum(name, &[]), limit));
    sums.into_iter().filter(|(_, sum, limit)| sum > limit).map(|(name, sum, _)| (name, sum))
}

/// Dollars as a JSON number, exact.
pub fn dollars(nano: u64) -> Value {
    serde_json::from_str(&NanoUsd(nano).to_string()).unwrap()
}

/// Nano-dollars of a JSON number of dollars. Fifteen digits survive being read as a float.
pub fn nano(dollars: &Value) -> u64 {
    assert!(dollars.is_number(), "no amount: {dollars}");
    NanoUsd::from_usd(&dollars.to_string()).unwrap_or_else(|error| panic!("{dollars} {error}")).0
}

/// Nano-dollars of a header in dollars.
pub fn header_nano(answer: &Answer, name: &str) -> u64 {
    let text = answer.header(name).unwrap_or_else(|| panic!("no {name}: {answer:?}"));
    NanoUsd::from_usd(text).unwrap_or_else(|error| panic!("{text} {error}")).0
}

/// How many answers had which status and error type.
pub fn told(answers: &[Answer]) -> BTreeMap<(u16, String), usize> {
    let mut told = BTreeMap::new();
    for answer in answers {
        let error = answer.header("x-amzn-errortype").unwrap_or_default().to_owned();
        *told.entry((answer.status, error)).or_default() += 1;
    }
    told
}

pub fn served(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| answer.status == 200).count()
}

/// A Converse request of one message that allows so many tokens.
pub fn converse(model: &str, operation: &str, max_tokens: u64) -> Asked {
    let body = json!({
        "messages": [{ "role": "user", "content": [{ "text": "Hello there, how are you?" }] }],
        "inferenceConfig": { "maxTokens": max_tokens },
    });
    Asked::post(&format!("/bedrock/model/{model}/{operation}"), body.to_string())
}
