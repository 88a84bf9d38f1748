//! Answers processes that are about to end and still have something to settle, after this one has taken the store over
//! from them. The socket is for the owner of the file alone.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tokio::io::BufStream;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::Embedded;
use super::wire::{self, Answer, Command};
use crate::store::{Directory as _, LedgerStore as _};

/// Answers until it is stopped.
#[derive(Debug)]
pub(super) struct Server {
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Server {
    /// Listens on `socket`, in place of whoever did so before.
    ///
    /// # Errors
    /// When that is not possible.
    pub(super) fn start(socket: &Path, store: Arc<Embedded>) -> io::Result<Self> {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        std::fs::set_permissions(socket, PermissionsExt::from_mode(0o600))?;
        let (stop, stopped) = watch::channel(false);
        Ok(Self { stop, running: tokio::spawn(accept(listener, store, stopped)) })
    }

    /// Answers what was asked so far, then nothing more.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.running.await {
            log::error!("the socket of the store ended abnormally: {error}");
        }
    }
}

async fn accept(listener: UnixListener, store: Arc<Embedded>, mut stopped: watch::Receiver<bool>) {
    let mut conversations = JoinSet::new();
    let theirs = stopped.clone();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = conversations.join_next(), if !conversations.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if is_own(&stream) => {
                    conversations.spawn(converse(stream, Arc::clone(&store), theirs.clone()));
                }
                Ok(_) => log::warn!("another user tried to use the store"),
                Err(error) => {
                    log::warn!("the socket of the store: {error}");
                    tokio::time::sleep(super::LEAVING_POLL).await;
                }
            },
        }
    }
    drop(listener);
    while conversations.join_next().await.is_some() {}
}

/// Whether the other side is run by the same user, who could read the file itself.
fn is_own(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}

async fn converse(stream: UnixStream, store: Arc<Embedded>, mut stopped: watch::Receiver<bool>) {
    let mut stream = BufStream::new(stream);
    loop {
        let command = tokio::select! {
            biased;
            // What was not read yet is asked again, of the next owner.
            _ = stopped.changed() => return,
            command = wire::read(&mut stream) => command,
        };
        let answered = match command {
            Ok(Some(command)) => answer(&store, command, &mut stream).await,
            Ok(None) => return,
            Err(error) => Err(error),
        };
        if let Err(error) = answered {
            log::warn!("a process that settles through this one: {error}");
            return;
        }
    }
}

async fn answer(store: &Embedded, command: Command, to: &mut BufStream<UnixStream>) -> io::Result<()> {
    async fn say<T: Serialize>(to: &mut BufStream<UnixStream>, answer: Answer<T>) -> io::Result<()> {
        wire::write(to, &answer).await
    }
    match command {
        Command::Reserve(request) => say(to, store.reserve_for_another(&request).await).await,
        Command::Extend { lease, to: amount, charges } => {
            say(to, store.extend_for_another(&lease, amount, &charges).await).await
        }
        Command::Apply { node, first, ops } => say(to, store.apply(&node, first, &ops).await).await,
        Command::Touch { leases, ttl_ms } => say(to, store.touch(&leases, ttl_ms).await).await,
        Command::Reap(limit) => say(to, store.reap(limit).await).await,
        Command::Balances(accounts) => say(to, store.balances(&accounts).await).await,
        Command::Claim { account, mark } => say(to, store.claim(&account, &mark).await).await,
        Command::Entries(query) => say(to, store.entries(&query).await).await,
        Command::Rollups { from, to: until } => say(to, store.rollups(&from, &until).await).await,
        Command::Forget(before_ms) => say(to, store.forget(before_ms).await).await,
        Command::LeaseCounts => say(to, store.lease_counts().await).await,
        Command::Get { kind, id } => say(to, store.get(kind, &id).await).await,
        Command::List { kind, after, limit } => say(to, store.list(kind, after.as_deref(), limit).await).await,
        Command::Commit(changes) => wire::write(to, &store.commit(&changes).await).await,
        Command::Changes(cursor) => say(to, store.changes(cursor.as_deref()).await).await,
    }
}
