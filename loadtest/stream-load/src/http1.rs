//! One stream after the other over an HTTP/1.1 connection, which is kept as long as the server keeps it.

use bytes::{Buf, BytesMut};
use httparse::{EMPTY_HEADER, Response, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::chunks::Chunks;
use crate::fault::Fault;
use crate::stats::Watch;
use crate::target::Target;

const READ_BYTES: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;

/// A connection that is made when it is needed.
#[derive(Debug, Default)]
pub struct Client {
    stream: Option<TcpStream>,
    input: BytesMut,
}

/// The head of a response that was understood.
struct Head {
    len: usize,
    status: u16,
    is_chunked: bool,
    is_last: bool,
}

impl Client {
    /// Makes the connection, unless it is there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn connect(&mut self, target: &Target) -> Result<(), Fault> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(target.address).await.map_err(|error| Fault::Connect(error.kind()))?;
            // Only latency suffers where the option is not supported.
            drop(stream.set_nodelay(true));
            self.input.clear();
            self.stream = Some(stream);
        }
        Ok(())
    }

    /// Reads one stream to its end.
    ///
    /// # Errors
    /// Why it is not whole.
    pub async fn stream(&mut self, target: &Target, watch: Watch<'_>) -> Result<(), Fault> {
        // Given back only when the next request may follow.
        let Some(mut stream) = self.stream.take() else { return Err(Fault::Cut) };
        stream.write_all(&target.message).await?;
        let head = read_head(&mut stream, &mut self.input).await?;
        if head.status != 200 {
            return Err(Fault::Status(head.status));
        }
        if !head.is_chunked {
            return Err(Fault::Http("the body is not chunked"));
        }
        read_body(&mut stream, &mut self.input, watch).await?;
        if !head.is_last && self.input.is_empty() {
            self.stream = Some(stream);
        }
        Ok(())
    }
}

async fn fill(stream: &mut TcpStream, input: &mut BytesMut) -> Result<(), Fault> {
    input.reserve(READ_BYTES);
    if stream.read_buf(input).await? == 0 { Err(Fault::Cut) } else { Ok(()) }
}

async fn read_head(stream: &mut TcpStream, input: &mut BytesMut) -> Result<Head, Fault> {
    loop {
        if let Some(head) = parse(input)? {
            input.advance(head.len);
            return Ok(head);
        }
        fill(stream, input).await?;
    }
}

fn parse(input: &[u8]) -> Result<Option<Head>, Fault> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = Response::new(&mut headers);
    let parsed = response.parse(input).map_err(|_| Fault::Http("this is no response"))?;
    let Status::Complete(len) = parsed else { return Ok(None) };
    let says = |name: &str, value: &[u8]| {
        let mut named = response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        named.any(|header| header.value.eq_ignore_ascii_case(value))
    };
    Ok(Some(Head {
        len,
        status: response.code.unwrap_or(0),
        is_chunked: says("transfer-encoding", b"chunked"),
        is_last: says("connection", b"close"),
    }))
}

async fn read_body(stream: &mut TcpStream, input: &mut BytesMut, mut watch: Watch<'_>) -> Result<(), Fault> {
    let mut chunks = Chunks::BEGIN;
    loop {
        let mut rest: &[u8] = input;
        while let Some(content) = chunks.next(&mut rest)? {
            watch.receive(content)?;
        }
        let left = rest.len();
        input.advance(input.len() - left);
        if chunks.is_over() {
            return watch.end();
        }
        fill(stream, input).await?;
    }
}
