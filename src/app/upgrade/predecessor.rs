//! The side of the new process: it takes one thing after the other from the old one, and the service last.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{LINE_BYTES_MAX, Offer, PROTOCOL, Reply, Say, UpgradeError, line, receive};
use crate::app::listen::Ports;

/// The old process may have much to write before it can close its store.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The process that serves now.
#[derive(Debug)]
pub struct Predecessor {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
    offer: Offer,
    ports: Ports,
}

impl Predecessor {
    /// Calls the process that waits at `socket`.
    ///
    /// # Errors
    /// When none does, or when it is of another user or speaks otherwise.
    pub(in crate::app) fn meet(socket: &Path) -> Result<Self, UpgradeError> {
        Self::call(socket).map_err(|error| UpgradeError { socket: socket.to_owned(), why: error.to_string() })
    }

    fn call(socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        stream.write_all(&line(&Say::Hello { protocol: PROTOCOL, version })?)?;
        let (begun, sockets) = receive(&stream)?;
        let mut stream = BufReader::new(stream);
        let offer = match understood(&mut stream, begun)? {
            Reply::Offer(offer) => offer,
            other => return Err(unexpected(other)),
        };
        let ports = Ports::of(&offer.sockets, sockets)?;
        Ok(Self { socket: socket.to_owned(), stream, offer, ports })
    }

    /// The sockets that it listens on.
    pub(in crate::app) fn take_ports(&mut self) -> Ports {
        std::mem::take(&mut self.ports)
    }

    /// How often systemd wants to hear from the process.
    pub(in crate::app) fn watchdog(&self) -> Option<Duration> {
        self.offer.watchdog_us.map(Duration::from_micros)
    }

    /// Has the old process close `file`, if it is the store that it has open.
    ///
    /// # Errors
    /// When it does not.
    pub(in crate::app) fn release_store(&mut self, file: &Path) -> Result<(), UpgradeError> {
        let same = |theirs: &PathBuf| theirs == file || theirs.canonicalize().ok() == file.canonicalize().ok();
        if !self.offer.store.as_ref().is_some_and(same) {
            return Ok(());
        }
        match self.ask(&Say::ReleaseStore) {
            Ok(Reply::StoreReleased) => Ok(()),
            Ok(other) => Err(self.failed(&unexpected(other))),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Goes on with the service: the old process stops accepting, or has ended. Blocks.
    ///
    /// # Errors
    /// When it does not agree; it goes on, and this process has to end.
    pub(in crate::app) fn succeed(mut self) -> Result<(), UpgradeError> {
        match self.ask(&Say::Ready) {
            Ok(Reply::Yours) => Ok(()),
            Ok(other) => Err(self.failed(&unexpected(other))),
            Err(error) if is_gone(&error) => {
                // Sockets and store are here; if it went on, it would have said so.
                tracing::warn!("the process before this one has ended by itself; this one serves");
                Ok(())
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn ask(&mut self, what: &Say) -> io::Result<Reply> {
        match self.stream.get_mut().write_all(&line(what)?) {
            // What it said before it closed is there to be read.
            Err(error) if is_gone(&error) => {}
            written => written?,
        }
        understood(&mut self.stream, Vec::new())
    }

    fn failed(&self, error: &io::Error) -> UpgradeError {
        UpgradeError { socket: self.socket.clone(), why: error.to_string() }
    }
}

/// The reply that begins with `begun`.
fn understood(stream: &mut BufReader<UnixStream>, mut begun: Vec<u8>) -> io::Result<Reply> {
    if begun.last() != Some(&b'\n') {
        let left = LINE_BYTES_MAX.saturating_sub(begun.len());
        stream.take(u64::try_from(left).unwrap_or(0)).read_until(b'\n', &mut begun)?;
    }
    if begun.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended, or refuses"));
    }
    Ok(serde_json::from_slice(&begun)?)
}

/// Whether the other side has closed the connection.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn unexpected(reply: Reply) -> io::Error {
    io::Error::other(match reply {
        Reply::Refused(why) => why,
        other => format!("it answers {other:?}, which was not asked for"),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// What becomes of a succession whose other side ends the connection, before it has heard that it is to, with these
    /// last words.
    fn succeed(number: usize, words: Option<&Reply>) -> Result<(), UpgradeError> {
        let name = format!("dheera-ai-predecessor-{}-{number}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let met = thread::scope(|scope| {
            let met = scope.spawn(|| Predecessor::meet(&path).unwrap());
            let mut stream = listener.accept().unwrap().0;
            let offer = Reply::Offer(Offer { sockets: Vec::new(), store: None, watchdog_us: None });
            let lines = [Some(&offer), words].into_iter().flatten();
            // One after the other: the first is received with the sockets.
            for (at, reply) in lines.enumerate() {
                if at > 0 {
                    while !met.is_finished() {
                        thread::yield_now();
                    }
                }
                stream.write_all(&line(reply).unwrap()).unwrap();
            }
            met.join().unwrap()
        });
        std::fs::remove_file(&path).unwrap();
        met.succeed()
    }

    #[test]
    fn one_that_is_gone_is_succeeded_and_one_that_refuses_is_not() {
        succeed(1, None).unwrap();
        succeed(2, Some(&Reply::Yours)).unwrap();
        let error = succeed(3, Some(&Reply::Refused("not now".to_owned()))).unwrap_err();
        assert!(error.to_string().contains("not now"), "{error}");
    }
}
