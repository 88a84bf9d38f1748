//! Real Redis servers on free ports of this machine, each with a directory of its own, gone when the value is dropped.
//! Speaks to them by a socket of its own, not by the driver that is under test.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dheera_ai::config::{HostPort, Redis, RedisTopology};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A directory that is removed when it is dropped.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dheera-store-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A running `redis-server`.
pub struct RedisServer {
    pub port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
    pub directory: Directory,
}

impl RedisServer {
    /// Without persistence unless `arguments` say otherwise.
    pub async fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        let mut all = vec![
            "--port".to_owned(),
            port.to_string(),
            "--bind".to_owned(),
            "127.0.0.1".to_owned(),
            "--save".to_owned(),
            String::new(),
        ];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let mut server = Self { port, arguments: all, child: None, directory: Directory::new() };
        server.run().await;
        server
    }

    /// A Sentinel that watches `master` as `mymaster` and needs nobody to agree.
    pub async fn start_sentinel(master: &Self) -> Self {
        let directory = Directory::new();
        let port = free_port();
        let configuration = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds mymaster 400\nsentinel failover-timeout mymaster 2000\n",
            master.port
        );
        let path = directory.0.join("sentinel.conf");
        fs::write(&path, configuration).unwrap();
        let arguments = vec![path.display().to_string(), "--sentinel".to_owned()];
        let mut server = Self { port, arguments, child: None, directory };
        server.run().await;
        server
    }

    pub async fn start_replica(&self, arguments: &[&str]) -> Self {
        let port = self.port.to_string();
        let replica = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let replica = Self::start(&[&replica, arguments].concat()).await;
        until("the replica has a copy", || replica.command(&["INFO", "replication"]).contains("master_link_status:up"))
            .await;
        replica
    }

    /// Three masters that share the slots.
    pub async fn start_cluster() -> Vec<Self> {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let bus = free_port().to_string();
            nodes.push(Self::start(&["--cluster-enabled", "yes", "--cluster-port", &bus]).await);
            let node = nodes.last().unwrap();
            let (from, to) = [("0", "5460"), ("5461", "10922"), ("10923", "16383")][nodes.len() - 1];
            assert_eq!(node.command(&["CLUSTER", "ADDSLOTSRANGE", from, to]), "OK");
            if nodes.len() > 1 {
                let first = nodes[0].port.to_string();
                let first_bus = nodes[0].argument("--cluster-port");
                assert_eq!(node.command(&["CLUSTER", "MEET", "127.0.0.1", &first, &first_bus]), "OK");
            }
        }
        for node in &nodes {
            until("the cluster is up", || {
                let state = node.command(&["CLUSTER", "INFO"]);
                state.contains("cluster_state:ok") && state.contains("cluster_known_nodes:3")
            })
            .await;
        }
        nodes
    }

    /// Starts it again, in the same directory and on the same port.
    pub async fn run(&mut self) {
        let log = fs::File::create(self.directory.0.join("output")).unwrap();
        let child = Command::new("redis-server")
            .args(&self.arguments)
            .current_dir(&self.directory.0)
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server must be installed (Debian: redis-server): {error}"));
        self.child = Some(child);
        let started = Instant::now();
        loop {
            let answer = self.try_command(&["PING"]).unwrap_or_default();
            if answer == "PONG" || answer.starts_with("-NOAUTH") {
                return;
            }
            let lives = self.child.as_mut().unwrap().try_wait().unwrap().is_none();
            assert!(lives && started.elapsed().as_secs() < 15, "redis-server does not run:\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn output(&self) -> String {
        fs::read_to_string(self.directory.0.join("output")).unwrap_or_default()
    }

    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it as a service manager does.
    pub fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
        self.child.take().unwrap().wait().unwrap();
    }

    /// Lets it hang: it keeps its sockets and answers nothing.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    fn argument(&self, name: &str) -> String {
        let at = self.arguments.iter().position(|argument| argument == name).unwrap();
        self.arguments[at + 1].clone()
    }

    /// The answer to a command: a line, a text, or all lines of a list; errors begin with a minus.
    pub fn command(&self, words: &[&str]) -> String {
        self.try_command(words).unwrap()
    }

    fn try_command(&self, words: &[&str]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let words: Vec<_> = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        let request = format!("*{}\r\n{}", words.len(), words.concat());
        stream.write_all(request.as_bytes())?;
        answer(&mut BufReader::new(stream))
    }

    /// A configuration that leads here.
    pub fn config(&self) -> Redis {
        config(RedisTopology::Single(at(self.port)))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.thaw();
        }
        self.kill9();
    }
}

fn answer(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    Ok(match line.chars().next() {
        Some('+' | ':') => line[1..].to_owned(),
        Some('$') if line != "$-1" => {
            let mut text = vec![0; line[1..].parse::<usize>().unwrap() + 2];
            reader.read_exact(&mut text)?;
            String::from_utf8_lossy(&text).trim_end().to_owned()
        }
        Some('*') => {
            let count = line[1..].parse::<usize>().unwrap_or(0);
            (0..count).map(|_| answer(reader)).collect::<std::io::Result<Vec<_>>>()?.join("\n")
        }
        _ => line.to_owned(),
    })
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn at(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".to_owned(), port }
}

pub fn config(topology: RedisTopology) -> Redis {
    Redis {
        topology,
        tls: false,
        ca_file: None,
        username: None,
        password: None,
        database: 0,
        namespace: "dheera_ai".to_owned(),
        connect_timeout: Duration::from_secs(2),
        timeout: Duration::from_secs(2),
    }
}

/// Waits until something is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed().as_secs() < 30, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A certificate authority and a certificate of it for 127.0.0.1.
pub fn certificates(directory: &Path) {
    let openssl = |arguments: &str| {
        let status = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(directory)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap_or_else(|error| panic!("openssl must be installed: {error}"));
        assert!(status.success(), "openssl {arguments}");
    };
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    openssl(&format!(
        "req -x509 {curve} -keyout ca.key -out ca.crt -subj /CN=authority \
         -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign"
    ));
    openssl(&format!(
        "req -x509 {curve} -CA ca.crt -CAkey ca.key -keyout server.key -out server.crt -subj /CN=redis \
         -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1,DNS:localhost"
    ));
}
