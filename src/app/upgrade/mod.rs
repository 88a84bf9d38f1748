//! How one process succeeds another without a request that fails: what the two say to each other, and how listening
//! sockets pass from one to the other.
//!
//! The process that serves waits at a socket in its state directory (`door`); one that is started with `--upgrade` calls
//! there (`predecessor`), takes the listening sockets, builds everything, asks for the embedded store as late as it can,
//! and says that it is ready. Only then the old one stops accepting. Whatever goes wrong before that, the connection
//! between the two ends, and the old one goes on as if nothing had been. An old one that goes on says so before it ends
//! the connection; if it says nothing, it is gone, and the new one goes on alone. Lines of JSON; the sockets go along
//! with the first of them (`SCM_RIGHTS`, unix(7)).

pub(super) mod door;
pub(super) mod predecessor;

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::listen::Ports;

/// Of what the two say. A process of another protocol is not succeeded; it has to be stopped.
const PROTOCOL: u32 = 1;

/// One of them is plain, one is TLS.
const SOCKETS_MAX: usize = 2;

/// Longer than any line.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// What the new process says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Say {
    Hello {
        protocol: u32,
        version: String,
    },
    /// Close the embedded store, so that it can be opened here.
    ReleaseStore,
    /// Connections are accepted here from now on.
    Ready,
}

/// What the old one answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Offer(Offer),
    StoreReleased,
    /// No connection is accepted here any more.
    Yours,
    Refused(String),
}

/// What the new process can have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Offer {
    /// The kinds of the sockets that go along, in order.
    sockets: Vec<Kind>,
    /// The file of the embedded store.
    store: Option<PathBuf>,
    /// How often systemd wants to hear from its main process, in microseconds: it tells only the one that it started.
    watchdog_us: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Plain,
    Tls,
}

/// Why a process does not succeed another.
#[derive(Debug)]
pub struct UpgradeError {
    socket: PathBuf,
    why: String,
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the process that serves now cannot be succeeded by way of {}: {}; it goes on. Check that it runs, as the \
             same user and with the same store_path or upgrade_socket; without --upgrade this process starts on its own",
            self.socket.display(),
            self.why
        )
    }
}

impl std::error::Error for UpgradeError {}

fn line(what: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    Ok(line)
}

impl Ports {
    fn kinds(&self) -> Vec<Kind> {
        let plain = self.plain.iter().map(|_| Kind::Plain);
        plain.chain(self.tls.iter().map(|_| Kind::Tls)).collect()
    }

    /// Sends `line` and the sockets along with it.
    fn send(&self, line: &[u8], over: impl AsFd) -> io::Result<()> {
        let sockets: Vec<_> = [&self.plain, &self.tls].into_iter().flatten().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::Error::other("too many sockets"));
        }
        let sent = sendmsg(over, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?;
        // A socket that is new has room for a line.
        if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn of(kinds: &[Kind], sockets: Vec<OwnedFd>) -> io::Result<Self> {
        if kinds.len() != sockets.len() {
            return Err(io::Error::other("fewer sockets came than were announced"));
        }
        let mut ports = Self::default();
        for (kind, socket) in kinds.iter().zip(sockets) {
            let listener = TcpListener::from(socket);
            // Something else would fail here.
            listener.local_addr()?;
            match kind {
                Kind::Plain => ports.plain = Some(listener),
                Kind::Tls => ports.tls = Some(listener),
            }
        }
        Ok(ports)
    }
}

/// Reads what came first of a line, and the sockets that came along with it.
fn receive(from: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; LINE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    bytes.truncate(received.bytes);
    let sockets = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    Ok((bytes, sockets.flatten().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_pass_with_their_line() {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let ports = Ports { plain: Some(bind()), tls: Some(bind()) };
        let (here, there) = UnixStream::pair().unwrap();
        ports.send(b"{}\n", &here).unwrap();
        let (said, sockets) = receive(&there).unwrap();
        assert_eq!(said, b"{}\n");
        let passed = Ports::of(&ports.kinds(), sockets).unwrap();
        let addresses =
            |ports: &Ports| [&ports.plain, &ports.tls].map(|port| port.as_ref().unwrap().local_addr().unwrap());
        assert_eq!(addresses(&passed), addresses(&ports));
        // It is the same socket: whoever connects is accepted here, though the first owner is gone.
        let [plain, _] = addresses(&ports);
        drop(ports);
        std::net::TcpStream::connect(plain).unwrap();
        passed.plain.unwrap().accept().unwrap();
    }

    #[test]
    fn sockets_that_do_not_come_are_missed() {
        assert!(Ports::of(&[Kind::Plain], Vec::new()).is_err());
        let (no_port, _) = UnixStream::pair().unwrap();
        assert!(Ports::of(&[Kind::Plain], vec![no_port.into()]).is_err());
    }
}
