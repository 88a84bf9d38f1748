//! The side of the process that serves: it waits for the next one and gives it what it asks for, the service last. If
//! the next one ends before it is ready, everything is as it was.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use super::{LINE_BYTES_MAX, Offer, PROTOCOL, Reply, Say, line};
use crate::app::lifecycle::Supervisor;
use crate::app::notify;
use crate::store::embedded::Movable;

/// The next process may wait for credentials or a store before it is ready.
const SILENCE_MAX: Duration = Duration::from_mins(2);

/// A process that does not read why it is refused need not know.
const FAREWELL: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_millis(100);

/// Where the next process is met.
#[derive(Debug)]
pub(in crate::app) struct Door {
    path: PathBuf,
    /// `None` once another process may make its own here.
    listener: Option<UnixListener>,
}

impl Drop for Door {
    fn drop(&mut self) {
        if self.listener.is_some() {
            // The next start would find it stale and remove it.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

impl Door {
    /// Waits at `path` from now on.
    ///
    /// # Errors
    /// When another process does so, or when the socket cannot be made.
    pub(in crate::app) async fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), listener: Some(bind(path).await?) })
    }

    /// Resolves when another process has taken the service over. May be dropped at any time; what a process that has not
    /// got that far was given is the caller's to take back.
    pub(in crate::app) async fn succeeded(mut self, supervisor: &Supervisor) {
        loop {
            let stream = match self.listener().await.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("the next process cannot be met: {error}");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            match self.meet(stream, supervisor).await {
                Ok(pid) => {
                    tracing::info!(pid, "another process serves; this one finishes what it has begun");
                    return;
                }
                Err(error) => {
                    tracing::error!("this process goes on, the next one did not become ready: {error}");
                    if let Some(store) = &supervisor.store {
                        take_back(store).await;
                    }
                }
            }
        }
    }

    /// Where to wait; made anew if that is what it takes, however often it fails.
    async fn listener(&mut self) -> &UnixListener {
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => bind_in_the_end(&self.path).await,
        };
        self.listener.insert(listener)
    }

    /// Gives a process everything up to the service; its id. If this process goes on, the other one is told.
    async fn meet(&mut self, stream: UnixStream, supervisor: &Supervisor) -> io::Result<i32> {
        let mut stream = BufReader::new(stream);
        let met = self.converse(&mut stream, supervisor).await;
        if let Err(error) = &met
            && let Ok(refusal) = line(&Reply::Refused(error.to_string()))
        {
            // It may have ended.
            drop(timeout(FAREWELL, stream.get_mut().write_all(&refusal)).await);
        }
        met
    }

    async fn converse(&mut self, stream: &mut BufReader<UnixStream>, supervisor: &Supervisor) -> io::Result<i32> {
        let peer = stream.get_ref().peer_cred()?;
        if peer.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other(format!("it is run by another user, {}", peer.uid())));
        }
        match hear(stream).await? {
            Say::Hello { protocol: PROTOCOL, version } => {
                tracing::info!(version, "another process is about to take over");
            }
            Say::Hello { protocol, .. } => {
                let why = format!("this process speaks protocol {PROTOCOL} of upgrades and not {protocol}; restart it");
                return Err(io::Error::other(why));
            }
            other => return Err(io::Error::other(format!("it begins with {other:?}"))),
        }
        offer(stream.get_ref(), supervisor).await?;
        loop {
            match hear(stream).await? {
                Say::ReleaseStore => {
                    if let Some(store) = &supervisor.store {
                        store.release().await.map_err(io::Error::other)?;
                    }
                    stream.get_mut().write_all(&line(&Reply::StoreReleased)?).await?;
                }
                Say::Ready => break,
                other @ Say::Hello { .. } => return Err(io::Error::other(format!("it says {other:?} again"))),
            }
        }
        // It makes one of its own as soon as it has the service.
        let listener = self.listener.take();
        drop(listener);
        let pid = peer.pid().unwrap_or_default();
        if let Ok(pid) = u32::try_from(pid) {
            notify::succeeded_by(pid);
        }
        if let Err(error) = stream.get_mut().write_all(&line(&Reply::Yours)?).await {
            notify::ready(true);
            return Err(error);
        }
        Ok(pid)
    }
}

async fn bind(path: &Path) -> io::Result<UnixListener> {
    match UnixStream::connect(path).await {
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process waits there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        // If something else stands there, it stays, and the next line tells.
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// As [`bind`], again until it is possible.
async fn bind_in_the_end(path: &Path) -> UnixListener {
    let mut told = false;
    loop {
        match bind(path).await {
            Ok(listener) => return listener,
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::warn!("the next process cannot be met at {}: {error}", path.display());
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
}

/// Sends the sockets, and says what else there is.
async fn offer(stream: &UnixStream, supervisor: &Supervisor) -> io::Result<()> {
    let (line, ports) = {
        let ports = supervisor.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ports) = ports.as_ref() else { return Err(io::Error::other("this process is about to end")) };
        let offer = Offer {
            sockets: ports.kinds(),
            store: supervisor.store.as_ref().map(|store| store.file().to_owned()),
            watchdog_us: supervisor.watchdog.and_then(|interval| u64::try_from(interval.as_micros()).ok()),
        };
        (line(&Reply::Offer(offer))?, ports.duplicate()?)
    };
    stream.async_io(Interest::WRITABLE, || ports.send(&line, stream)).await
}

/// What the next process says; an error when it has ended.
async fn hear(stream: &mut BufReader<UnixStream>) -> io::Result<Say> {
    let mut line = Vec::new();
    let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let heard = timeout(SILENCE_MAX, stream.take(most).read_until(b'\n', &mut line)).await;
    match heard {
        Err(_elapsed) => Err(io::Error::other("it says nothing for too long")),
        Ok(Err(error)) => Err(error),
        Ok(Ok(0)) => Err(io::Error::other("it has ended; its own log says why")),
        Ok(Ok(_)) => Ok(serde_json::from_slice(&line)?),
    }
}

/// Until the file is free again, which is when the other process has ended.
async fn take_back(store: &Movable) {
    let mut told = false;
    while let Err(error) = store.take_back().await {
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("the store is not back yet: {error}");
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream as Caller;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::admin::readiness::Readiness;
    use crate::app::lifecycle::Lifecycle;
    use crate::app::listen::Ports;
    use crate::app::upgrade::receive;
    use crate::telemetry::metrics::Metrics;

    fn supervisor(socket: &Path) -> Supervisor {
        let ports = Ports { plain: Some(TcpListener::bind("127.0.0.1:0").unwrap()), tls: None };
        Supervisor {
            lifecycle: Arc::new(Lifecycle::new(Arc::new(Readiness::new(None)))),
            metrics: Arc::new(Metrics::new().unwrap()),
            ports: Mutex::new(Some(ports)),
            socket: socket.to_owned(),
            store: None,
            watchdog: None,
            succeeds: false,
            shutdown_delay: Duration::ZERO,
            shutdown_timeout: Duration::ZERO,
        }
    }

    /// A process that has the sockets and is about to say that it is ready.
    async fn met(socket: &Path) -> Caller {
        while !socket.exists() || Caller::connect(socket).is_err() {
            tokio::task::yield_now().await;
        }
        let mut caller = Caller::connect(socket).unwrap();
        say(&mut caller, &Say::Hello { protocol: PROTOCOL, version: "test".to_owned() });
        let caller = tokio::task::spawn_blocking(move || receive(&caller).map(|_| caller)).await;
        caller.unwrap().unwrap()
    }

    fn say(caller: &mut Caller, what: &Say) {
        caller.write_all(&line(what).unwrap()).unwrap();
    }

    #[tokio::test]
    async fn a_process_that_dies_while_it_gets_the_service_does_not_get_it_though_the_door_cannot_be_made_again() {
        let directory = std::env::temp_dir().join(format!("dheera-ai-door-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let socket = directory.join("upgrade.sock");
        let supervisor = Arc::new(supervisor(&socket));
        let door = Door::open(&socket).await.unwrap();
        let succeeded = tokio::spawn({
            let supervisor = Arc::clone(&supervisor);
            async move { door.succeeded(&supervisor).await }
        });
        let mut dies = met(&socket).await;
        // Something is in the way.
        std::fs::remove_file(&socket).unwrap();
        std::fs::create_dir(&socket).unwrap();
        say(&mut dies, &Say::Ready);
        drop(dies);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!succeeded.is_finished(), "nobody has the service");
        std::fs::remove_dir(&socket).unwrap();
        let mut lives = met(&socket).await;
        assert!(!succeeded.is_finished(), "nobody has the service");
        say(&mut lives, &Say::Ready);
        succeeded.await.unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
