//! One socket: requests one after the other, each answered in one write. Buffers are kept from request to request.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use hyper::http::request::Parts;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::Served;
use super::answers::template;
use super::body::Body;
use super::head::{self, Head, Malformed, Route};
use super::script::now_ns;
use crate::answer::Answer;

const READ_BYTES: usize = 16 * 1024;
const HEAD_BYTES_MAX: usize = 256 * 1024;
/// Of a request that is authenticated.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

pub struct Connection {
    stream: TcpStream,
    input: BytesMut,
    output: Vec<u8>,
    served: Arc<Served>,
}

/// A request whose head has been taken off the input.
struct Request {
    route: Route,
    number: u64,
    body: Body,
    expects_continue: bool,
    is_last: bool,
    is_head: bool,
    check: Option<Check>,
}

/// What is kept of a request that is to be authenticated.
struct Check {
    parts: Option<Parts>,
    body: Vec<u8>,
}

impl Connection {
    pub fn new(stream: TcpStream, served: Arc<Served>) -> Self {
        Self { stream, input: BytesMut::with_capacity(READ_BYTES), output: Vec::new(), served }
    }

    /// Serves until the client has no more requests.
    ///
    /// # Errors
    /// When the client leaves in the middle of something, or sends what is no request.
    pub async fn serve(mut self) -> io::Result<()> {
        while let Some(mut request) = self.next_request().await? {
            self.pass_body(&mut request).await?;
            self.answer(&request).await?;
            if request.is_last {
                break;
            }
        }
        Ok(())
    }

    /// Reads more input; gives false at its end.
    async fn fill(&mut self) -> io::Result<bool> {
        self.input.reserve(READ_BYTES);
        let count = self.stream.read_buf(&mut self.input).await?;
        self.served.door.count_bytes(count);
        Ok(count > 0)
    }

    async fn next_request(&mut self) -> io::Result<Option<Request>> {
        loop {
            if !self.input.is_empty() {
                match self.take_head() {
                    Ok(Some(request)) => return Ok(Some(request)),
                    Ok(None) if self.input.len() < HEAD_BYTES_MAX => {}
                    Ok(None) | Err(Malformed) => return Err(self.refuse().await),
                }
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Takes a head off the input, when it is complete.
    fn take_head(&mut self) -> Result<Option<Request>, Malformed> {
        let door = &self.served.door;
        let mut space = head::space();
        let Some(head) = Head::parse(&self.input, &mut space)? else { return Ok(None) };
        let route = head.route();
        let is_model = matches!(route, Route::Converse | Route::Invoke | Route::ConverseStream);
        let number = if is_model { door.count_request() } else { 0 };
        let check = (is_model && door.checks(number)).then(|| Check { parts: head.to_parts(), body: Vec::new() });
        let throttled = is_model && door.throttles(head.authorization);
        let request = Request {
            route: if throttled { Route::Throttled } else { route },
            number,
            body: head.body,
            expects_continue: head.expects_continue,
            is_last: head.is_last,
            is_head: head.method == "HEAD",
            check,
        };
        let len = head.len;
        self.input.advance(len);
        Ok(Some(request))
    }

    async fn pass_body(&mut self, request: &mut Request) -> io::Result<()> {
        if request.expects_continue && self.input.is_empty() && !request.body.is_over() {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        loop {
            let kept = request.check.as_mut().map(|check| &mut check.body);
            let kept = kept.filter(|kept| kept.len() < BODY_BYTES_MAX);
            match request.body.pass(&self.input, kept) {
                Ok(passed) => self.input.advance(passed),
                Err(_) => return Err(self.refuse().await),
            }
            if request.body.is_over() {
                return Ok(());
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Says that this is no request.
    async fn refuse(&mut self) -> io::Error {
        self.output.clear();
        self.served.answers.malformed.write(&mut self.output, 0, true);
        match self.stream.write_all(&self.output).await {
            Ok(()) => io::ErrorKind::InvalidData.into(),
            Err(error) => error,
        }
    }

    async fn answer(&mut self, request: &Request) -> io::Result<()> {
        let Served { answers, script, door } = &*self.served;
        let number = request.number;
        self.output.clear();
        let refusal = request.check.as_ref().and_then(|check| door.refusal(check.parts.as_ref(), &check.body));
        if let Some(refusal) = refusal {
            refusal.write(&mut self.output, number, true);
        } else if request.route == Route::ConverseStream {
            door.count_stream();
            match script.whole() {
                Some(whole) => whole.write(&mut self.output, number, true),
                None => return self.play(number).await,
            }
        } else if request.route == Route::Counters {
            template(&Answer::json(200, &json!(door.totals()))).write(&mut self.output, number, true);
        } else {
            answers.of(request.route).write(&mut self.output, number, !request.is_head);
        }
        self.stream.write_all(&self.output).await
    }

    /// Sends a stream on its schedule. Frames that are late go out at once; the others keep their times.
    async fn play(&mut self, number: u64) -> io::Result<()> {
        let script = &self.served.script;
        let begin = Instant::now();
        let timer = sleep_until(begin);
        tokio::pin!(timer);
        for index in 0..script.frames {
            let due = begin + script.due(index);
            if index > 0 && due > Instant::now() {
                timer.as_mut().reset(due);
                timer.as_mut().await;
            }
            self.output.clear();
            script.write(&mut self.output, number, index, now_ns());
            self.stream.write_all(&self.output).await?;
        }
        Ok(())
    }
}
