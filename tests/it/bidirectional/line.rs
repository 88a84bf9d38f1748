//! A client of a bidirectional stream, over HTTP/2 by prior knowledge on a connection of its own. Its windows are small,
//! so that what is not read soon stops whoever sends it.

use std::io;
use std::net::{Shutdown, SocketAddr};

use bedrock_sim::eventstream::{self, Frame as EventFrame};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::PATH;
use crate::support::DEADLINE;

const WINDOW_BYTES: u32 = 64 * 1024;

/// An open stream.
pub(super) struct Line {
    /// What is sent in here is the request's body; dropping it ends the request.
    pub body: mpsc::Sender<Bytes>,
    pub response: JoinHandle<hyper::Result<Response<Incoming>>>,
    socket: std::net::TcpStream,
}

impl Line {
    pub async fn open(address: SocketAddr, key: &str) -> Self {
        let stream = std::net::TcpStream::connect(address).unwrap();
        let socket = stream.try_clone().unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = TcpStream::from_std(stream).unwrap();
        let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(async move { drop(connection.await) });
        let (body, pieces) = mpsc::channel::<Bytes>(4);
        let pieces = futures::stream::unfold(pieces, |mut pieces| async {
            let piece = pieces.recv().await?;
            Some((Ok::<_, io::Error>(Frame::data(piece)), pieces))
        });
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={key}/20261122/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=00"
        );
        let request = Request::post(format!("http://proxy.test{PATH}"))
            .header("authorization", authorization)
            .header("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-EVENTS")
            .header("content-type", "application/vnd.amazon.eventstream")
            .body(BodyExt::boxed_unsync(StreamBody::new(pieces)))
            .unwrap();
        let response = tokio::spawn(async move { sender.send_request(request).await });
        Self { body, response, socket }
    }

    /// Waits for the header of the answer.
    pub async fn answered(self) -> Talk {
        let response = timeout(DEADLINE, self.response).await.expect("no answer in time").unwrap().unwrap();
        assert_eq!(response.status(), 200);
        let call_id = response.headers()["x-dheera-ai-call-id"].to_str().unwrap().to_owned();
        let answer = Answer { body: response.into_body(), seen: BytesMut::new() };
        Talk { call_id, body: Some(self.body), answer, socket: self.socket }
    }
}

/// A stream of which the answer has begun.
pub(super) struct Talk {
    pub call_id: String,
    /// `None` once the request has ended.
    pub body: Option<mpsc::Sender<Bytes>>,
    pub answer: Answer,
    socket: std::net::TcpStream,
}

impl Talk {
    /// Sends a piece of the request.
    pub async fn send(&self, piece: Bytes) {
        let sent = timeout(DEADLINE, self.body.as_ref().unwrap().send(piece)).await;
        sent.expect("the request stands still").expect("the request has ended");
    }

    /// Closes the connection, as that of a client that is killed.
    pub fn vanish(&self) {
        self.socket.shutdown(Shutdown::Both).unwrap();
    }

    /// Ends the request.
    pub fn hang_up(&mut self) {
        self.body = None;
    }
}

/// The answer, read frame by frame.
pub(super) struct Answer {
    body: Incoming,
    seen: BytesMut,
}

impl Answer {
    /// The next frame; `None` at the end, which must not come inside of one.
    pub async fn next(&mut self) -> Option<EventFrame> {
        loop {
            if let Some(frame) = eventstream::decode(&mut self.seen).unwrap() {
                return Some(frame);
            }
            let Some(piece) = timeout(DEADLINE, self.body.frame()).await.expect("the answer stands still") else {
                assert!(self.seen.is_empty(), "the answer ends inside a frame: {:?}", self.seen);
                return None;
            };
            self.seen.extend_from_slice(piece.unwrap().data_ref().map_or(&[][..], |data| data));
        }
    }

    /// All frames that are still to come.
    pub async fn rest(&mut self) -> Vec<EventFrame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}
