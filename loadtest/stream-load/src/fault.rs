//! Why a stream failed, in words that can be counted.

use std::fmt;
use std::io;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Connect(io::ErrorKind),
    Io(io::ErrorKind),
    Status(u16),
    /// The response ended before its body did, or in the middle of a frame.
    Cut,
    /// What came is no HTTP/1.1 response with a chunked body.
    Http(&'static str),
    Http2(String),
    /// What came is no event stream.
    Frame(&'static str),
    /// The stream told of an exception.
    Exception,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(kind) => write!(f, "connect: {kind}"),
            Self::Io(kind) => write!(f, "io: {kind}"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Cut => write!(f, "cut"),
            Self::Http(why) => write!(f, "http: {why}"),
            Self::Http2(why) => write!(f, "http2: {why}"),
            Self::Frame(why) => write!(f, "frame: {why}"),
            Self::Exception => write!(f, "exception"),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}
