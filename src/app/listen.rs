//! The ports of the proxy: bound by this process, or inherited from the one that it succeeds, and the service that
//! accepts on them until `lifecycle` closes them.
//!
//! They are bound before anything else is started, so that a port that is taken is told at once and port 0 is known.
//! Pingora 0.9.1 takes a descriptor for each address (`Fds`) and listens on it; a duplicate stays here for the next
//! process. A listening socket is shared by all who hold it: connections that wait in it go to whoever accepts.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::IntoRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::server::{Fds, ListenFds, ShutdownWatch};
use pingora_core::services::Service as PingoraService;
use pingora_core::services::listening::Service;

use super::StartError;
use super::edge::Prompt;
use super::lifecycle::Lifecycle;
use super::notify;
use crate::config::Listen;

/// Heartbeats for each worker and look; which worker gets one is left to chance.
const HEARTBEATS: usize = 4;

/// Where the proxy listens; at least one of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub plain: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
}

/// The listening sockets.
#[derive(Debug, Default)]
pub(super) struct Ports {
    pub plain: Option<TcpListener>,
    pub tls: Option<TcpListener>,
}

impl Ports {
    /// Those that the configuration asks for: of `inherited` those that fit, the others anew.
    pub(super) fn open(listen: &Listen, inherited: Self) -> Result<Self, StartError> {
        let (plain, tls) = match listen.tls.as_ref().map(|tls| tls.port) {
            None => (Some(listen.port), None),
            Some(None) => (None, Some(listen.port)),
            Some(Some(port)) => (Some(listen.port), Some(port)),
        };
        let open = |inherited, port| open(listen.host, port, inherited);
        Ok(Self {
            plain: plain.map(|port| open(inherited.plain, port)).transpose()?,
            tls: tls.map(|port| open(inherited.tls, port)).transpose()?,
        })
    }

    /// # Errors
    /// When a socket does not know its address.
    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        let address = |port: &Option<TcpListener>| port.as_ref().map(TcpListener::local_addr).transpose();
        Ok(Addresses { plain: address(&self.plain)?, tls: address(&self.tls)? })
    }

    /// The same sockets once more.
    ///
    /// # Errors
    /// When the process may not open more files.
    pub(super) fn duplicate(&self) -> io::Result<Self> {
        let duplicate = |port: &Option<TcpListener>| port.as_ref().map(TcpListener::try_clone).transpose();
        Ok(Self { plain: duplicate(&self.plain)?, tls: duplicate(&self.tls)? })
    }

    /// A duplicate of each, by the address that Pingora knows it by.
    ///
    /// # Errors
    /// When the process may not open more files.
    pub(super) fn descriptors(&self) -> io::Result<ListenFds> {
        let mut descriptors = Fds::new();
        for port in [&self.plain, &self.tls].into_iter().flatten() {
            // Pingora accepts without blocking.
            port.set_nonblocking(true)?;
            descriptors.add(port.local_addr()?.to_string(), port.try_clone()?.into_raw_fd());
        }
        Ok(Arc::new(Mutex::new(descriptors)))
    }
}

fn open(host: IpAddr, port: u16, inherited: Option<TcpListener>) -> Result<TcpListener, StartError> {
    let wanted = SocketAddr::new(host, port);
    if let Some(listener) = inherited
        && listener.local_addr().is_ok_and(|own| own.ip() == host && (port == 0 || own.port() == port))
    {
        return Ok(listener);
    }
    TcpListener::bind(wanted).map_err(|error| StartError::Address(wanted, error))
}

/// The service that accepts connections, once `lifecycle` lets it: until then those that come are for the process before,
/// or wait. Pingora would close its port and its idle connections in one moment, when the process is told to stop;
/// `lifecycle` says when each is due.
pub(super) struct Listening {
    pub service: Service<Prompt>,
    pub descriptors: Option<ListenFds>,
    pub lifecycle: Arc<Lifecycle>,
    pub workers: usize,
    /// How often systemd wants to hear from us.
    pub watchdog: Option<Duration>,
}

#[async_trait]
impl PingoraService for Listening {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, listeners_per_fd: usize) {
        let closing = self.lifecycle.port_closing();
        let mut closes = closing.clone();
        tokio::select! {
            () = self.lifecycle.until_it_may_listen() => {}
            _ = closes.wait_for(|closes| *closes) => return,
        }
        let serve =
            PingoraService::start_service(&mut self.service, self.descriptors.take(), closing, listeners_per_fd);
        tokio::pin!(serve);
        // Up to its first pause it makes its listeners and the tasks that accept.
        if futures::poll!(serve.as_mut()).is_ready() {
            return;
        }
        self.lifecycle.listens();
        tokio::select! {
            () = serve => {}
            () = watch_over_workers(self.workers, self.watchdog) => {}
        }
    }

    fn name(&self) -> &str {
        self.service.name()
    }
}

/// Tells systemd that we are alive for as long as every worker carries out what it is given in time.
async fn watch_over_workers(workers: usize, interval: Option<Duration>) {
    let Some(interval) = interval else { return std::future::pending().await };
    loop {
        let beats: Vec<_> = (0..workers * HEARTBEATS)
            .map(|_| pingora_runtime::current_handle().spawn(std::future::ready(())))
            .collect();
        match tokio::time::timeout(interval / 4, futures::future::join_all(beats)).await {
            // It waits while systemd does not read.
            Ok(_) => drop(tokio::task::spawn_blocking(notify::alive).await),
            Err(_elapsed) => tracing::error!("a worker thread hangs; systemd is not told that the proxy is well"),
        }
        tokio::time::sleep(interval / 4).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn an_inherited_socket_is_used_where_its_address_fits() {
        let held = open(LOOPBACK, 0, None).unwrap();
        let address = held.local_addr().unwrap();
        for port in [0, address.port()] {
            let inherited = open(LOOPBACK, port, Some(held.try_clone().unwrap())).unwrap();
            assert_eq!(inherited.local_addr().unwrap(), address, "{port}");
        }
        let elsewhere = open(Ipv4Addr::new(127, 0, 0, 2).into(), address.port(), Some(held)).unwrap();
        assert_ne!(elsewhere.local_addr().unwrap(), address);
    }

    #[test]
    fn a_port_that_is_taken_is_told() {
        let held = open(LOOPBACK, 0, None).unwrap();
        let port = held.local_addr().unwrap().port();
        let error = open(LOOPBACK, port, None).unwrap_err().to_string();
        assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("--port"), "{error}");
    }
}
