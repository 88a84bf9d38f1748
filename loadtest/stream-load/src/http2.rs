//! Streams over HTTP/2 connections by prior knowledge, so many on each.

use std::sync::Arc;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::fault::Fault;
use crate::stats::{Stats, Watch};
use crate::target::Target;

/// What may arrive ahead of its reader; wide, so that the client is never what a stream waits for.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// A connection that is made when it is needed, for several streams.
#[derive(Debug, Clone, Default)]
pub struct Client(Arc<Mutex<Option<SendRequest<Bytes>>>>);

impl Client {
    /// Opens a stream and reads it to its end.
    ///
    /// # Errors
    /// Why it is not whole.
    pub async fn stream(&self, target: &Target, stats: &std::sync::Mutex<Stats>) -> Result<(), Fault> {
        let sender = self.sender(target).await?;
        let read = read(sender, target, stats).await;
        if let Err((_, true)) = &read {
            self.0.lock().await.take();
        }
        read.map_err(|(fault, _)| fault)
    }

    async fn sender(&self, target: &Target) -> Result<SendRequest<Bytes>, Fault> {
        let mut kept = self.0.lock().await;
        if let Some(sender) = &*kept {
            return Ok(sender.clone());
        }
        let stream = TcpStream::connect(target.address).await.map_err(|error| Fault::Connect(error.kind()))?;
        // Only latency suffers where the option is not supported.
        drop(stream.set_nodelay(true));
        let mut builder = Builder::new();
        builder.initial_window_size(STREAM_WINDOW_BYTES).initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let (sender, connection) = builder.handshake(stream).await.map_err(|error| fault(&error).0)?;
        // Its end is seen by the streams on it.
        tokio::spawn(async move { drop(connection.await) });
        *kept = Some(sender.clone());
        Ok(sender)
    }
}

/// With each fault, whether the connection is of no more use.
async fn read(
    sender: SendRequest<Bytes>,
    target: &Target,
    stats: &std::sync::Mutex<Stats>,
) -> Result<(), (Fault, bool)> {
    let whole = |fault| (fault, false);
    let mut sender = sender.ready().await.map_err(|error| fault(&error))?;
    let mut watch = Watch::begin(stats);
    let (response, mut body) = sender.send_request(target.head.clone(), false).map_err(|error| fault(&error))?;
    body.send_data(target.body.clone(), true).map_err(|error| fault(&error))?;
    let response = response.await.map_err(|error| fault(&error))?;
    if response.status() != 200 {
        return Err(whole(Fault::Status(response.status().as_u16())));
    }
    let mut content = response.into_body();
    while let Some(data) = content.data().await {
        let data = data.map_err(|error| fault(&error))?;
        watch.receive(&data).map_err(whole)?;
        content.flow_control().release_capacity(data.len()).map_err(|error| fault(&error))?;
    }
    watch.end().map_err(whole)
}

fn fault(error: &h2::Error) -> (Fault, bool) {
    (Fault::Http2(error.to_string()), error.is_io() || error.is_go_away())
}
