//! The proxy as users run it: a process of its own with a cleared environment, a configuration file, and what it says
//! on standard output and standard error. It is killed when the handle goes, so that a failed test leaves nothing.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::metrics::Metrics;
use super::{Answer, Asked, DEADLINE, Http, MASTER_KEY, call, eventually};

const BINARY: &str = env!("CARGO_BIN_EXE_dheera_ai");

/// A file that is removed again.
pub struct TemporaryFile(pub PathBuf);

impl TemporaryFile {
    pub fn new(name: &str, content: &str) -> Self {
        let path = Self::path_of(name);
        fs::write(&path, content).unwrap();
        Self(path)
    }

    /// A path of its own for each call.
    fn path_of(name: &str) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("it-{}-{number}-{name}", std::process::id()))
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // Nothing is lost when the file has gone already.
        drop(fs::remove_file(&self.0));
    }
}

/// A directory that is removed again, with all that is in it.
pub struct TemporaryDirectory(pub PathBuf);

impl TemporaryDirectory {
    pub fn new(name: &str) -> Self {
        let path = TemporaryFile::path_of(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // Nothing is lost when it has gone already.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Runs the program to its end: `check`, `config show`, or a start that fails.
pub fn run_to_end(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(BINARY).args(arguments).env_clear().envs(variables.iter().copied()).output().unwrap()
}

/// A running proxy.
pub struct Proxy {
    child: Child,
    /// The first that it says.
    pub address: SocketAddr,
    stdout: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    config: Option<TemporaryFile>,
    /// Where it keeps keys and budgets, unless its variables say otherwise.
    _store: TemporaryDirectory,
}

/// How to start a proxy.
#[derive(Default)]
pub struct Start<'a> {
    /// The text of the configuration file; without one the proxy runs in direct mode.
    pub config: Option<&'a str>,
    pub variables: Vec<(&'a str, String)>,
    pub arguments: Vec<&'a str>,
    pub no_master_key: bool,
}

impl Proxy {
    /// Starts a proxy with the master key of the tests on a free port and waits until it says that it runs.
    pub fn start(start: Start<'_>) -> Self {
        let (mut proxy, said) = Self::begin(start);
        match said.recv_timeout(DEADLINE) {
            Ok(address) => proxy.address = address.parse().unwrap(),
            Err(error) => panic!("the proxy did not start, {error}:\n{}", proxy.stderr()),
        }
        proxy
    }

    /// Starts a proxy that does not run before something else happens.
    pub fn start_waiting(start: Start<'_>) -> Self {
        Self::begin(start).0
    }

    /// Waits until it says that it runs.
    pub async fn running(&mut self) {
        let said = || Some(self.stdout().lines().find_map(|line| line.strip_prefix("RUNNING on http://"))?.to_owned());
        self.address = eventually("the proxy to run", said).await.parse().unwrap();
    }

    fn begin(start: Start<'_>) -> (Self, mpsc::Receiver<String>) {
        let config = start.config.map(|text| TemporaryFile::new("config.yaml", text));
        let store = TemporaryDirectory::new("store");
        let mut command = Command::new(BINARY);
        command.args(["--host", "127.0.0.1", "--port", "0"]).args(&start.arguments).env_clear();
        if let Some(config) = &config {
            command.args(["--config", config.path()]);
        }
        if !start.no_master_key {
            command.env("DHEERA_AI_MASTER_KEY", MASTER_KEY);
        }
        // No credential source of this machine may be asked.
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", "/nonexistent");
        command.env("DHEERA_AI_STORE_PATH", store.path());
        command.envs(start.variables).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<String>>::default());
        let (says, said) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut err = child.stderr.take().unwrap();
        let (lines, log) = (Arc::clone(&stdout), Arc::clone(&stderr));
        let readers = vec![
            std::thread::spawn(move || {
                for line in out.lines() {
                    let line = line.unwrap();
                    if let Some((_, address)) = line.strip_prefix("RUNNING on ").and_then(|url| url.split_once("://")) {
                        says.send(address.to_owned()).unwrap_or_default();
                    }
                    lines.lock().unwrap().push(line);
                }
            }),
            std::thread::spawn(move || {
                let mut buffer = [0; 8192];
                while let Ok(count @ 1..) = err.read(&mut buffer) {
                    log.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
                }
            }),
        ];
        let address = ([127, 0, 0, 1], 0).into();
        (Self { child, address, stdout, stderr, readers, config, _store: store }, said)
    }

    /// Writes another text into its configuration file, at once as far as a reader can tell.
    pub fn configure(&self, text: &str) {
        let path = &self.config.as_ref().unwrap().0;
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, path).unwrap();
    }

    /// Where it speaks TLS.
    pub async fn tls_address(&self) -> SocketAddr {
        let said = || Some(self.stdout().lines().find_map(|line| line.strip_prefix("RUNNING on https://"))?.to_owned());
        eventually("an https:// address", said).await.parse().unwrap()
    }

    /// Everything on standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.lock().unwrap().join("\n")
    }

    /// Everything on standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// The request records so far.
    pub fn records(&self) -> Vec<Value> {
        let lines = self.stdout.lock().unwrap();
        lines.iter().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The record of one call, by the id that its answer carries.
    pub async fn record(&self, call_id: &str) -> Value {
        let named = format!("\"call_id\":\"{call_id}\"");
        let find = || self.stdout.lock().unwrap().iter().rev().find(|line| line.contains(&named)).cloned();
        let line = eventually(&format!("the record of {call_id}"), find).await;
        serde_json::from_str(&line).unwrap()
    }

    /// The records once there are `count` of them.
    pub async fn records_once(&self, count: usize) -> Vec<Value> {
        let lines = || self.stdout.lock().unwrap().iter().filter(|line| line.starts_with('{')).count();
        eventually(&format!("{count} records"), || (lines() >= count).then(|| self.records())).await
    }

    /// One request on a connection of its own.
    pub async fn call(&self, asked: &Asked) -> Answer {
        call(self.address, Http::One, asked).await
    }

    /// What `/metrics` says now.
    pub async fn metrics(&self) -> Metrics {
        let answer = self.call(&Asked::get("/metrics")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics::parse(&answer.text())
    }

    /// Asserts that the proxy still serves: a listed model answers.
    pub async fn assert_serves(&self, path: &str) {
        let answer = self.call(&Asked::converse(path)).await;
        assert_eq!(answer.status, 200, "the proxy no longer serves: {answer:?}\n{}", self.stderr());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for the end of the process and of its output.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = eventually("the end of the proxy", || child.try_wait().unwrap()).await;
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
