//! Answers from memory, for load tests: the ordinary mode costs more for each request than the proxy before it. One
//! thread, HTTP/1.1 only, no bill, no records, no faults but one region that is throttled. Answers have the shape of
//! the ordinary mode's and always the same length. Signatures are checked of one request in so many.
//!
//! | module | what |
//! |---|---|
//! | `connection` | one socket: head, body, answer |
//! | `head`, `body` | what a request's bytes say, and where it ends |
//! | `answers`, `script` | the bytes of answers and of streams |
//! | `door` | counting, throttling and checking of requests |

mod answers;
mod body;
mod connection;
mod door;
mod head;
mod script;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::server::{Credential, StartError};
use answers::Answers;
use connection::Connection;
use door::Door;
use script::Script;

/// Connections that may wait to be accepted: thousands of streams begin at once.
const BACKLOG: u32 = 4096;

/// What to answer, and what to check.
#[derive(Debug, Clone)]
pub struct Canned {
    pub listen: SocketAddr,
    pub credentials: Vec<Credential>,
    pub bearer_tokens: Vec<String>,
    /// Each so-manieth request is authenticated; 0 is none.
    pub verify_every: u64,
    /// Text frames of each stream.
    pub frames: u32,
    /// Text frames per second of each stream; 0 is all at once.
    pub frame_rate_hz: u32,
    /// Requests signed for this region are refused with 429.
    pub throttle_region: Option<String>,
}

impl Default for Canned {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            credentials: Vec::new(),
            bearer_tokens: Vec::new(),
            verify_every: 0,
            frames: 100,
            frame_rate_hz: 0,
            throttle_region: None,
        }
    }
}

/// A running canned simulator. Dropping it closes the port; connections go on until the runtime ends.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Canned {
    /// Binds, and serves on tasks of the current runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(self) -> Result<Serving, StartError> {
        let bind_error = |error| StartError::Bind(self.listen, error);
        let listener = listen(self.listen).map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let served = Arc::new(Served {
            answers: Answers::new(),
            script: Script::new(self.frames, self.frame_rate_hz),
            door: Door::new(&self),
        });
        Ok(Serving { address, accepting: tokio::spawn(accept(listener, served)) })
    }
}

impl Serving {
    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What all connections share.
#[derive(Debug)]
struct Served {
    answers: Answers,
    script: Script,
    door: Door,
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, served: Arc<Served>) {
    loop {
        // Accepting fails when descriptors run out; pausing lets connections end.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Only latency suffers where the option is not supported.
        drop(stream.set_nodelay(true));
        let connection = Connection::new(stream, Arc::clone(&served));
        // It ends with an error when the client left.
        tokio::spawn(async move { drop(connection.serve().await) });
    }
}

#[cfg(test)]
mod tests;
