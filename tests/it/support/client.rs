//! An HTTP client on one connection, HTTP/1.1 or HTTP/2 by prior knowledge, that sends exactly what it is told and keeps
//! what came of an answer that broke off.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{DEADLINE, MASTER_KEY};

type Body = BoxBody<Bytes, Infallible>;

/// The HTTP version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    One,
    Two,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// Pieces of this size, without an announced length.
    pub chunk_bytes: Option<usize>,
}

impl Asked {
    fn new(method: &str, path: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("authorization".to_owned(), format!("Bearer {MASTER_KEY}"))];
        Self { method: method.to_owned(), path: path.to_owned(), headers, body: body.into(), chunk_bytes: None }
    }

    pub fn method(method: &str, path: &str, body: impl Into<Bytes>) -> Self {
        Self::new(method, path, body)
    }

    pub fn get(path: &str) -> Self {
        Self::new("GET", path, "")
    }

    pub fn post(path: &str, body: impl Into<Bytes>) -> Self {
        Self::new("POST", path, body).with("content-type", "application/json")
    }

    /// A Converse request of one short message.
    pub fn converse(path: &str) -> Self {
        Self::post(path, r#"{"messages":[{"role":"user","content":[{"text":"Hello there, how are you?"}]}]}"#)
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this key in place of the master key.
    #[must_use]
    pub fn by(mut self, key: &str) -> Self {
        self.headers.retain(|(name, _)| name != "authorization");
        self.with("authorization", &format!("Bearer {key}"))
    }

    /// Without the key, and without any other header so far.
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.headers.clear();
        self
    }

    #[must_use]
    pub fn chunked(mut self, chunk_bytes: usize) -> Self {
        self.chunk_bytes = Some(chunk_bytes);
        self
    }

    fn request(&self, http: Http) -> Request<Body> {
        let uri = if http == Http::Two { format!("http://proxy.test{}", self.path) } else { self.path.clone() };
        let mut request = Request::builder().method(self.method.as_str()).uri(uri);
        if http == Http::One {
            request = request.header("host", "proxy.test");
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = match self.chunk_bytes {
            Some(bytes) => {
                let chunks: Vec<_> =
                    self.body.chunks(bytes).map(|chunk| Ok(Frame::data(self.body.slice_ref(chunk)))).collect();
                StreamBody::new(futures::stream::iter(chunks)).boxed()
            }
            None if self.body.is_empty() && self.method != "POST" => Empty::new().boxed(),
            None => Full::new(self.body.clone()).boxed(),
        };
        request.body(body).unwrap()
    }
}

/// What came of a request.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Why the body broke off, if it did.
    pub broke: Option<String>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn call_id(&self) -> &str {
        self.header("x-dheera-ai-call-id").unwrap_or_else(|| panic!("no call id: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Asserts that this is an error in AWS's form with a message.
    pub fn assert_error(&self, status: u16, error_type: &str) {
        assert_eq!((self.status, self.header("x-amzn-errortype")), (status, Some(error_type)), "{self:?}");
        assert!(self.json()["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
    }
}

/// A connection to the proxy, or to the simulator.
pub enum Connection {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Connection {
    pub async fn open(address: SocketAddr, http: Http) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, http).await
    }

    /// On a stream that is connected, such as one of TLS.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, http: Http) -> Self {
        let io = TokioIo::new(stream);
        // How a connection ends shows in the answers; its task has nothing to add.
        match http {
            Http::One => {
                let (sender, connection) =
                    http1::Builder::new().max_headers(2000).handshake::<_, Body>(io).await.unwrap();
                tokio::spawn(async move { drop(connection.await) });
                Self::One(sender)
            }
            Http::Two => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
                tokio::spawn(async move { drop(connection.await) });
                Self::Two(sender)
            }
        }
    }

    /// Sends and waits for the header of the answer.
    pub async fn begin(&mut self, asked: &Asked) -> Response<Incoming> {
        self.try_begin(asked)
            .await
            .unwrap_or_else(|error| panic!("no answer to {} {}: {error:?}", asked.method, asked.path))
    }

    pub async fn try_begin(&mut self, asked: &Asked) -> hyper::Result<Response<Incoming>> {
        let sent = async {
            match self {
                Self::One(sender) => {
                    sender.ready().await?;
                    sender.send_request(asked.request(Http::One)).await
                }
                Self::Two(sender) => {
                    sender.ready().await?;
                    sender.send_request(asked.request(Http::Two)).await
                }
            }
        };
        timeout(DEADLINE, sent).await.expect("no answer in time")
    }

    /// Sends and reads the whole answer, or what comes of it.
    pub async fn call(&mut self, asked: &Asked) -> Answer {
        let response = self.begin(asked).await;
        timeout(DEADLINE, whole(response)).await.expect("the answer does not end")
    }
}

/// One request on a connection of its own.
pub async fn call(address: SocketAddr, http: Http, asked: &Asked) -> Answer {
    Connection::open(address, http).await.call(asked).await
}

/// Reads an answer to its end.
pub async fn whole(response: Response<Incoming>) -> Answer {
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    let mut broke = None;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            Err(error) => {
                broke = Some(format!("{error:?}"));
                break;
            }
        }
    }
    Answer { status: head.status.as_u16(), headers: head.headers, body: bytes.into(), broke }
}

/// Reads at least `count` bytes of a body that goes on.
pub async fn read_at_least(body: &mut Incoming, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = async {
        while bytes.len() < count {
            let frame = body.frame().await.expect("the body ended early").expect("the body broke");
            bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
    };
    let in_time = timeout(DEADLINE, reading).await.is_ok();
    assert!(in_time, "{} of {count} bytes came", bytes.len());
    bytes
}
