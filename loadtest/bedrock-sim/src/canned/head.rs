//! The head of a request: what is asked for, where the body ends, and what the signature covers.

use std::mem::MaybeUninit;

use httparse::{Header, Status};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request};

use super::body::Body;

const HEADERS_MAX: usize = 128;

/// A place for the headers of a head that is being read.
pub type Space<'a> = [MaybeUninit<Header<'a>>; HEADERS_MAX];

/// An empty [`Space`].
pub const fn space<'a>() -> Space<'a> {
    [const { MaybeUninit::uninit() }; HEADERS_MAX]
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Converse,
    Invoke,
    ConverseStream,
    Health,
    Counters,
    /// To a model, but of a region that is to have no answers.
    Throttled,
    Unknown,
}

/// A complete head.
#[derive(Debug)]
pub struct Head<'a> {
    /// Its bytes, with the empty line.
    pub len: usize,
    pub method: &'a str,
    pub target: &'a str,
    pub headers: &'a [Header<'a>],
    pub authorization: &'a str,
    pub body: Body,
    /// Whether the body comes only after `100 Continue`.
    pub expects_continue: bool,
    /// Whether this is the connection's last request.
    pub is_last: bool,
}

/// Not a head that this server understands.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

impl<'a> Head<'a> {
    /// `None` while it is incomplete.
    ///
    /// # Errors
    /// When it cannot become a head.
    pub fn parse(input: &'a [u8], space: &'a mut Space<'a>) -> Result<Option<Self>, Malformed> {
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(input, space).map_err(|_| Malformed)?;
        let Status::Complete(len) = parsed else { return Ok(None) };
        let (Some(method), Some(target)) = (request.method, request.path) else { return Err(Malformed) };
        let mut head = Self {
            len,
            method,
            target,
            headers: request.headers,
            authorization: "",
            body: Body::EMPTY,
            expects_continue: false,
            is_last: request.version == Some(0),
        };
        for header in head.headers {
            head.heed(header)?;
        }
        Ok(Some(head))
    }

    fn heed(&mut self, header: &Header<'a>) -> Result<(), Malformed> {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let value = || std::str::from_utf8(header.value).map(str::trim).map_err(|_| Malformed);
        // Lengths first: most headers are none of these.
        match header.name.len() {
            6 if is("expect") => self.expects_continue = value()?.eq_ignore_ascii_case("100-continue"),
            10 if is("connection") => {
                self.is_last |= value()?.split(',').any(|word| word.trim().eq_ignore_ascii_case("close"));
            }
            13 if is("authorization") => self.authorization = value()?,
            14 if is("content-length") => self.body = Body::Length(value()?.parse().map_err(|_| Malformed)?),
            17 if is("transfer-encoding") => {
                self.body =
                    if value()?.eq_ignore_ascii_case("chunked") { Body::CHUNKED } else { return Err(Malformed) };
            }
            _ => {}
        }
        Ok(())
    }

    /// The target without its query.
    pub fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    pub fn route(&self) -> Route {
        let path = self.path();
        match self.method {
            "POST" => path.strip_prefix("/model/").and_then(|rest| rest.rsplit_once('/')).map_or(
                Route::Unknown,
                |(_, operation)| match operation {
                    "converse" => Route::Converse,
                    "invoke" => Route::Invoke,
                    "converse-stream" => Route::ConverseStream,
                    _ => Route::Unknown,
                },
            ),
            "GET" | "HEAD" if path == "/_sim/health" => Route::Health,
            "GET" if path == "/_sim/counters" => Route::Counters,
            _ => Route::Unknown,
        }
    }

    /// The same as the ordinary mode has it; `None` where a name or the target has no place there.
    pub fn to_parts(&self) -> Option<Parts> {
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for header in self.headers {
            let name = hyper::header::HeaderName::from_bytes(header.name.as_bytes()).ok()?;
            headers.append(name, hyper::header::HeaderValue::from_bytes(header.value).ok()?);
        }
        let mut parts = Request::builder().method(self.method).uri(self.target).body(()).ok()?.into_parts().0;
        parts.headers = headers;
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(line: &str) -> Route {
        let input = format!("{line} HTTP/1.1\r\n\r\n");
        let mut space = space();
        Head::parse(input.as_bytes(), &mut space).unwrap().unwrap().route()
    }

    #[test]
    fn operations_are_told_apart_by_the_end_of_the_path() {
        assert_eq!(route("POST /model/amazon.nova-pro-v1%3A0/converse"), Route::Converse);
        assert_eq!(route("POST /model/arn:aws:bedrock:x:1:a/b/invoke?q=/converse"), Route::Invoke);
        assert_eq!(route("POST /model/m/converse-stream"), Route::ConverseStream);
        assert_eq!(route("HEAD /_sim/health"), Route::Health);
        for unknown in ["GET /model/m/converse", "POST /model/converse", "POST /models/m/converse", "GET /"] {
            assert_eq!(route(unknown), Route::Unknown, "{unknown}");
        }
    }

    #[test]
    fn a_head_is_awaited_until_its_empty_line() {
        let whole =
            b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nConnection: te, Close\r\nContent-Length: 25\r\n\r\nbody";
        let end = whole.len() - 4;
        for at in 0..whole.len() {
            let mut space = space();
            let parsed = Head::parse(&whole[..at], &mut space).unwrap();
            assert_eq!(parsed.map(|head| head.len), (at >= end).then_some(end), "{at}");
        }
        let mut space = space();
        let head = Head::parse(whole, &mut space).unwrap().unwrap();
        assert_eq!((head.body, head.expects_continue, head.is_last), (Body::Length(25), true, true));
    }

    #[test]
    fn damaged_heads_are_refused() {
        for head in ["POST\r\n\r\n", "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n"] {
            let mut space = space();
            assert_eq!(Head::parse(head.as_bytes(), &mut space).err(), Some(Malformed), "{head}");
        }
    }
}
