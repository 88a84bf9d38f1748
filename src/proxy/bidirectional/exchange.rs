//! The two directions of a conversation, which never wait for each other.
//!
//! What the client says goes to a task that owns the upstream's side of the request. The client is asked for more only
//! when there is room for it, so what an upstream does not take stops the client and fills no memory. A client that
//! does not take its answer is not read either, until its write deadline. Whatever comes from either side is a sign of
//! life: a conversation ends when both are silent for as long as the upstream may be. A client that leaves has its
//! request ended in its place, so that the model comes to an end too and reports what it cost.

use bytes::Bytes;
use http::Version;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::protocols::http::v2::write_body;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::resign::Resigner;
use crate::proxy::context::RequestContext;
use crate::proxy::delivery::{Delivery, Expected, Heard};
use crate::proxy::{Gateway, failover, respond};

/// Signed frames on their way to the upstream.
struct Piece {
    frames: Bytes,
    /// Whether the request ends with it.
    last: bool,
}

/// A place for the next of them.
type Room<'u> = mpsc::Permit<'u, Piece>;

/// How far the client's side has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// There may be more.
    Open,
    /// The client left, and the upstream is to be told as soon as it takes something.
    Left,
    /// The upstream has been told of its end.
    Ended,
    /// The upstream takes no more of it.
    Unwanted,
}

/// What happens next.
enum Event<'u> {
    Answer(Result<HttpTask>),
    Room(Option<Room<'u>>),
    Client(Result<Heard>),
}

/// A conversation whose request header has been sent.
pub(super) struct Exchange<'a> {
    gateway: &'a Gateway,
    ctx: &'a mut RequestContext,
    client: &'a mut ServerSession,
    upstream: &'a mut Http2Session,
    delivery: Delivery,
    resigner: Resigner,
    request: Request,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        gateway: &'a Gateway,
        ctx: &'a mut RequestContext,
        client: &'a mut ServerSession,
        upstream: &'a mut Http2Session,
        delivery: Delivery,
        resigner: Resigner,
    ) -> Self {
        Self { gateway, ctx, client, upstream, delivery, resigner, request: Request::Open }
    }

    /// Until the answer is complete.
    ///
    /// # Errors
    /// What else ended the conversation; the upstream's stream is reset then.
    pub(super) async fn run(mut self) -> Result<()> {
        let Some(mut writer) = self.upstream.take_request_body_writer() else {
            return Error::e_explain(ErrorType::InternalError, "a request without a header has no body");
        };
        let (uplink, mut pieces) = mpsc::channel::<Piece>(1);
        // Dropped with this request, and the stream with it.
        let mut writing = JoinSet::new();
        writing.spawn(async move {
            while let Some(Piece { frames, last }) = pieces.recv().await {
                if (last || !frames.is_empty())
                    && let Err(error) = write_body(&mut writer, frames, last, None).await
                {
                    // Why it takes no more stands in its answer, or in that there is none.
                    tracing::debug!("the upstream takes no more of a request: {error}");
                    return;
                }
            }
        });
        self.delivery.begin();
        let mut room: Option<Room<'_>> = None;
        loop {
            if self.request == Request::Open && self.delivery.deserted() {
                self.request = Request::Left;
            }
            if self.request == Request::Left
                && let Some(room) = room.take()
            {
                room.send(Piece { frames: self.resigner.cut_short(), last: true });
                self.request = Request::Ended;
            }
            match self.next(&uplink, room.is_some()).await {
                Event::Answer(task) => {
                    if self.answer(task).await? {
                        return self.complete();
                    }
                }
                Event::Room(None) => self.request = Request::Unwanted,
                Event::Room(some) => room = some,
                Event::Client(Ok(Heard::Left)) => {}
                Event::Client(Ok(Heard::Body(piece))) => {
                    if let Some(room) = room.take() {
                        self.say(room, piece).await?;
                    }
                }
                Event::Client(Err(error)) => {
                    self.delivery.break_off(self.client, &error).await?;
                    return Err(error);
                }
            }
        }
    }

    /// Waits for either side. Nothing is lost of what does not come first.
    async fn next<'u>(&mut self, uplink: &'u mpsc::Sender<Piece>, has_room: bool) -> Event<'u> {
        let unfinished = matches!(self.request, Request::Open | Request::Left);
        let expected = match self.request {
            Request::Open if has_room => Expected::Body,
            Request::Ended => Expected::Nothing,
            Request::Open | Request::Left | Request::Unwanted => Expected::Patience,
        };
        tokio::select! {
            task = read(self.upstream) => Event::Answer(task),
            room = uplink.reserve(), if unfinished && !has_room => Event::Room(room.ok()),
            heard = self.delivery.wait(self.client, expected) => Event::Client(heard),
        }
    }

    /// Sends on what the client said, or that it has said everything.
    async fn say(&mut self, room: Room<'_>, piece: Option<Bytes>) -> Result<()> {
        let bytes = piece.as_ref().map_or(0, Bytes::len);
        self.ctx.record.request_bytes = self.ctx.record.request_bytes.saturating_add(bytes);
        if let Some((_, attempt)) = self.ctx.dispatched_mut() {
            attempt.request_bytes_streamed = attempt.request_bytes_streamed.saturating_add(bytes as u64);
        }
        let frames = match self.resigner.next(piece.as_deref()) {
            Ok(frames) => frames,
            Err(wrong) => return failover::give_up(self.ctx, wrong.into()).map_err(Error::into_down),
        };
        // What a model hears is paid for as well.
        respond::observe(self.gateway, self.ctx, None, false)?;
        if !self.delivery.paid().await {
            return self.delivery.end_unpaid(self.client, Vec::new()).await.map(drop);
        }
        room.send(Piece { frames, last: piece.is_none() });
        if piece.is_none() {
            self.request = Request::Ended;
        }
        self.delivery.heard();
        Ok(())
    }

    /// Meters what came of the answer and passes it on. True when it is complete.
    async fn answer(&mut self, task: Result<HttpTask>) -> Result<bool> {
        let mut task = task.unwrap_or_else(|error| HttpTask::Failed(error.into_up()));
        match &mut task {
            HttpTask::Header(header, _) => {
                respond::header(self.ctx, header)?;
                for_any_version(header)?;
            }
            HttpTask::Body(bytes, end) => respond::observe(self.gateway, self.ctx, bytes.as_ref(), *end)?,
            HttpTask::Trailer(_) | HttpTask::Done => respond::observe(self.gateway, self.ctx, None, true)?,
            HttpTask::UpgradedBody(..) | HttpTask::Failed(_) => {}
        }
        self.delivery.pass(self.client, vec![task]).await
    }

    /// The answer has come to its end, which a client that left did not see.
    fn complete(&self) -> Result<()> {
        if self.delivery.deserted() {
            // Pingora would end what it got of the answer as if it were whole.
            return Err(Error::explain(ErrorType::ConnectionClosed, "the client went away").into_down());
        }
        Ok(())
    }
}

/// The next piece of the upstream's answer. May be dropped at any time; not to be asked again after an error.
async fn read(upstream: &mut Http2Session) -> Result<HttpTask> {
    if upstream.response_header().is_none() {
        upstream.read_response_header().await?;
        if let Some(header) = upstream.response_header() {
            return Ok(HttpTask::Header(Box::new(header.clone()), false));
        }
    }
    while let Some(data) = upstream.read_response_body().await? {
        // HTTP/1.1 would take an empty chunk for the end.
        if !data.is_empty() {
            return Ok(HttpTask::Body(Some(data), false));
        }
    }
    Ok(match upstream.read_trailers().await? {
        Some(trailers) => HttpTask::Trailer(Some(Box::new(trailers))),
        None => HttpTask::Done,
    })
}

/// Makes a header of HTTP/2 fit for a client of HTTP/1.1 too; Pingora leaves out what HTTP/2 does not need.
fn for_any_version(header: &mut ResponseHeader) -> Result<()> {
    header.set_version(Version::HTTP_11);
    if !header.headers.contains_key(CONTENT_LENGTH) {
        header.insert_header(TRANSFER_ENCODING, "chunked")?;
    }
    Ok(())
}
