//! One TCP connection, with two things HTTP libraries hide: whether a request carried both Content-Length and
//! Transfer-Encoding (hyper drops the former before anyone sees it), and a way to end in a TCP reset. The head watch
//! follows HTTP/1 framing just far enough to find where the next head begins; it judges nothing else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A longer head is hyper's to refuse.
const HEAD_BYTES_MAX: usize = 512 * 1024;

/// What a request's handler and its connection tell each other.
#[derive(Debug, Default)]
pub struct Link {
    reset: AtomicBool,
    ambiguous: AtomicBool,
}

impl Link {
    /// Makes the connection end in a TCP reset.
    pub fn reset(&self) {
        self.reset.store(true, Ordering::Release);
    }

    /// Whether the current request's framing had two lengths; asking clears it.
    pub fn take_ambiguous_framing(&self) -> bool {
        self.ambiguous.swap(false, Ordering::AcqRel)
    }
}

/// The stream that hyper reads and writes.
pub struct Connection {
    stream: TcpStream,
    link: Arc<Link>,
    watch: HeadWatch,
}

impl Connection {
    pub fn new(stream: TcpStream, link: Arc<Link>) -> Self {
        Self { stream, link, watch: HeadWatch::default() }
    }

    fn is_reset(&self) -> bool {
        self.link.reset.load(Ordering::Acquire)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.is_reset() {
            // The socket closes right after this; failing to set the option only makes the close an ordinary one.
            drop(self.stream.set_zero_linger());
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_reset() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(fresh) = buf.filled().get(before..)
            && !fresh.is_empty()
            && self.watch.feed(fresh)
        {
            self.link.ambiguous.store(true, Ordering::Release);
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_reset() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_reset() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_reset() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where in a connection's bytes the watch is.
#[derive(Debug)]
enum HeadWatch {
    /// Inside a head, of which this much has come.
    Head(Vec<u8>),
    /// Inside a body of known length.
    Body(u64),
    /// At a chunk-size line, of which this much has come.
    ChunkSize(Vec<u8>),
    /// Inside a chunk and its line end.
    Chunk(u64),
    /// In the lines after the last chunk.
    Trailer(Vec<u8>),
    /// HTTP/2, or nothing that can be followed.
    Off,
}

impl Default for HeadWatch {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl HeadWatch {
    /// Takes what was read; says whether a head in it has both lengths.
    fn feed(&mut self, mut bytes: &[u8]) -> bool {
        let mut ambiguous = false;
        while !bytes.is_empty() {
            match self {
                Self::Off => break,
                Self::Head(seen) => match take_through(seen, &mut bytes, b"\r\n\r\n") {
                    Some(head) => {
                        let framing = Framing::of(&head);
                        ambiguous |= framing.ambiguous;
                        *self = framing.next;
                    }
                    None if seen.len() > HEAD_BYTES_MAX => *self = Self::Off,
                    None => {}
                },
                Self::Body(left) => {
                    skip(left, &mut bytes);
                    if *left == 0 {
                        *self = Self::default();
                    }
                }
                Self::ChunkSize(seen) => {
                    if let Some(line) = take_through(seen, &mut bytes, b"\r\n") {
                        *self = after_size_line(&line);
                    }
                }
                Self::Chunk(left) => {
                    skip(left, &mut bytes);
                    if *left == 0 {
                        *self = Self::ChunkSize(Vec::new());
                    }
                }
                Self::Trailer(seen) => {
                    if let Some(line) = take_through(seen, &mut bytes, b"\r\n") {
                        *self = if line == b"\r\n" { Self::default() } else { Self::Trailer(Vec::new()) };
                    }
                }
            }
        }
        ambiguous
    }
}

/// What a head says about the body behind it.
struct Framing {
    ambiguous: bool,
    next: HeadWatch,
}

impl Framing {
    fn of(head: &[u8]) -> Self {
        if head.starts_with(b"PRI * HTTP/2.0") {
            return Self { ambiguous: false, next: HeadWatch::Off };
        }
        let (mut length, mut chunked) = (None, false);
        for line in head.split(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = line.split_at(colon);
            let name = name.trim_ascii();
            if name.eq_ignore_ascii_case(b"transfer-encoding") {
                chunked = true;
            } else if name.eq_ignore_ascii_case(b"content-length") {
                let digits = value.get(1..).unwrap_or_default().trim_ascii();
                length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).or(Some(0));
            }
        }
        let next = match (chunked, length) {
            (true, _) => HeadWatch::ChunkSize(Vec::new()),
            (false, Some(1..)) => HeadWatch::Body(length.unwrap_or(0)),
            (false, _) => HeadWatch::default(),
        };
        Self { ambiguous: chunked && length.is_some(), next }
    }
}

fn after_size_line(line: &[u8]) -> HeadWatch {
    let digits = line.split(|byte| matches!(byte, b';' | b'\r')).next().unwrap_or_default().trim_ascii();
    let size = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
    match size {
        Some(0) => HeadWatch::Trailer(Vec::new()),
        Some(size) => HeadWatch::Chunk(size.saturating_add(2)),
        None => HeadWatch::Off,
    }
}

/// Moves bytes into `seen` until it ends in `end`, and then gives it; `None` while more is needed.
fn take_through(seen: &mut Vec<u8>, bytes: &mut &[u8], end: &[u8]) -> Option<Vec<u8>> {
    // The end may begin in what was seen before: look again at its last bytes.
    let overlap_from = seen.len().saturating_sub(end.len() - 1);
    let known = seen.len();
    seen.extend_from_slice(bytes);
    let found = seen.get(overlap_from..).and_then(|tail| memchr::memmem::find(tail, end));
    let Some(at) = found else {
        *bytes = &[];
        return None;
    };
    let length = overlap_from + at + end.len();
    *bytes = bytes.get(length.saturating_sub(known)..).unwrap_or_default();
    seen.truncate(length);
    Some(std::mem::take(seen))
}

fn skip(left: &mut u64, bytes: &mut &[u8]) {
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= u64::try_from(here).unwrap_or(0);
    *bytes = bytes.get(here..).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of each size; the answers must agree.
    fn ambiguous(bytes: &[u8]) -> usize {
        let counts: Vec<usize> = (1..=bytes.len())
            .map(|size| {
                let mut watch = HeadWatch::default();
                bytes.chunks(size).filter(|piece| watch.feed(piece)).count()
            })
            .collect();
        assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
        counts[0]
    }

    #[test]
    fn two_lengths_are_seen_in_either_order() {
        assert_eq!(
            ambiguous(b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            1
        );
        assert_eq!(
            ambiguous(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"),
            1
        );
    }

    #[test]
    fn bodies_are_skipped_and_heads_behind_them_found() {
        let clean = b"POST / HTTP/1.1\r\nContent-Length: 37\r\n\r\nContent-Length: 1\r\nTransfer-Encoding:\r\n\
            POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nabc\r\n\r\n0\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(ambiguous(&clean[..]), 0);
        let then_bad =
            [&clean[..], b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"].concat();
        assert_eq!(ambiguous(&then_bad), 1);
    }

    #[test]
    fn http2_is_not_followed() {
        assert_eq!(ambiguous(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nContent-Length: 1\r\nTransfer-Encoding: x\r\n\r\n"), 0);
    }
}
