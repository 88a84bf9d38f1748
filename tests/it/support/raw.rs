//! A client that writes bytes and reads bytes: for requests that no HTTP library would send.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::DEADLINE;

/// One TCP connection.
pub struct Raw {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// An HTTP/1 answer as it came.
#[derive(Debug, Clone)]
pub struct RawAnswer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer closed it.
    Closed,
    /// The peer reset it.
    Reset,
}

impl RawAnswer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl Raw {
    pub async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// The same on a connection that was accepted.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// The headers of a request that arrives, names in lower case, once its body of an announced length is here, too;
    /// `None` when the connection ends before.
    pub async fn request(&mut self) -> Option<Vec<(String, String)>> {
        let length = loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !matches!(self.fill().await, Ok(1..)) {
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..length).collect();
        let head = String::from_utf8(head).expect("the head of a request is text");
        let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        let headers: Vec<_> = lines.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let length = headers.iter().find(|(name, _)| name == "content-length").map_or("0", |(_, length)| length);
        let length: usize = length.parse().expect("a length");
        while self.buffer.len() < length {
            if !matches!(self.fill().await, Ok(1..)) {
                return None;
            }
        }
        self.buffer.drain(..length);
        Some(headers)
    }

    /// Writes; `false` when the peer has closed the connection.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Says that nothing more will be written.
    pub async fn finish_writing(&mut self) {
        // The peer may have closed first.
        drop(self.stream.shutdown().await);
    }

    async fn fill(&mut self) -> std::io::Result<usize> {
        self.buffer.reserve(65_536);
        let read = self.stream.read_buf(&mut self.buffer);
        timeout(DEADLINE, read).await.expect("the peer neither answers nor closes")
    }

    /// The next complete answer, informational ones included; `None` when the connection ends before one.
    pub async fn answer(&mut self) -> Option<RawAnswer> {
        let head_len = loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !matches!(self.fill().await, Ok(1..)) {
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..head_len).collect();
        let head = String::from_utf8(head).expect("the head of an answer is text");
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().expect("a status");
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers: Vec<_> =
            headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let mut answer = RawAnswer { status, headers, body: Bytes::new() };
        if answer.header("transfer-encoding").is_some() {
            answer.body = self.chunked().await?;
        } else if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().expect("a length");
            while self.buffer.len() < length {
                if !matches!(self.fill().await, Ok(1..)) {
                    return None;
                }
            }
            answer.body = self.buffer.drain(..length).collect();
        } else if status >= 200 && status != 204 {
            while matches!(self.fill().await, Ok(1..)) {}
            answer.body = std::mem::take(&mut self.buffer).into();
        }
        Some(answer)
    }

    async fn chunked(&mut self) -> Option<Bytes> {
        let mut body = Vec::new();
        loop {
            let line_end = loop {
                if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n") {
                    break at;
                }
                if !matches!(self.fill().await, Ok(1..)) {
                    return None;
                }
            };
            let line: Vec<u8> = self.buffer.drain(..line_end + 2).collect();
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).expect("a chunk size");
            while self.buffer.len() < size + 2 {
                if !matches!(self.fill().await, Ok(1..)) {
                    return None;
                }
            }
            body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
            if size == 0 {
                return Some(body.into());
            }
        }
    }

    /// What stands unread behind the answers so far.
    pub fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// Waits until the peer ends the connection; bytes before the end are kept as unread.
    pub async fn end(&mut self) -> End {
        loop {
            match self.fill().await {
                Ok(0) => return End::Closed,
                Ok(_) => {}
                Err(_) => return End::Reset,
            }
        }
    }
}
