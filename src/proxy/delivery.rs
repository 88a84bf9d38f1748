//! An answer on its way to the client, whoever fetches it from the upstream.
//!
//! It holds the header of a small answer until its cost is known, and the opening of a stream until its content comes
//! where another deployment could still be asked; watches how long the upstream takes, ends a stream when its budget is
//! used up, and reads an answer to its end when the client went away or takes too little, because its last bytes say what
//! it cost. What goes out of an event stream, and how it ends, is decided in `event_stream.rs`.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::{Error, ErrorType, Result};

use super::alarm::{Alarm, Ring};
use super::event_stream::{Ended, EventStream};
use super::pace::Pace;
use super::respond;
use super::shared::{
    BROKE_FIRST, BUDGET_SPENT, DAMAGED, Flaw, STOPPING, Shared, Silence, TOTAL_TIMEOUT, UPSTREAM_SILENT, is_overdue,
};

/// Larger answers leave at once, without the headers that depend on their body.
const HELD_BYTES_MAX: usize = 256 * 1024;

const TOO_SLOW: &str = "the client takes its answer too slowly";

/// Delivers one answer, of the last attempt that was begun.
pub(super) struct Delivery {
    shared: Arc<Shared>,
    held: Option<Held>,
    /// A stream that has no content yet.
    opening: Vec<HttpTask>,
    alarm: Alarm,
    /// How long the attempt's upstream may take.
    silence: Option<Silence>,
    quiet_until: Option<Instant>,
    /// By when a stream must have content.
    content_until: Option<Instant>,
    /// By when the answer must be complete.
    total_until: Option<Instant>,
    pace: Option<Pace>,
    started: bool,
    /// The answer, where it is an event stream.
    events: Option<EventStream>,
    deserted: Option<Deserted>,
    /// The frame that ends the stream is being written; it may have left in part when nobody waits for that any more.
    telling: bool,
    /// The answer was ended before the upstream had, and the upstream was let go.
    over: bool,
    /// When the request was sent on for the first time.
    began: Instant,
}

/// An answer whose header waits for its body.
struct Held {
    tasks: Vec<HttpTask>,
    bytes: usize,
}

/// An answer that is read on without a client.
struct Deserted {
    until: Instant,
    bytes_left: usize,
}

/// What a client is waited for to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// To send more of its request.
    Body,
    /// Nothing, its request has ended: whatever comes is that it goes away.
    Nothing,
    /// It may have more to send, for which there is no room yet. Without reading, only HTTP/2 shows that it goes away.
    Patience,
}

/// What it did.
#[derive(Debug)]
pub(super) enum Heard {
    /// A piece of its request, or the end of it.
    Body(Option<Bytes>),
    /// It went away, and the answer is read on for its bill.
    Left,
}

/// What ends a wait.
enum Event {
    Heard(Result<Option<Bytes>>),
    Rang(Ring),
}

impl Delivery {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let pace = Pace::new(shared.client_rate_min());
        Self {
            shared,
            held: None,
            opening: Vec::new(),
            alarm: Alarm::default(),
            silence: None,
            quiet_until: None,
            content_until: None,
            total_until: None,
            pace,
            started: false,
            events: None,
            deserted: None,
            telling: false,
            over: false,
            began: Instant::now(),
        }
    }

    /// An attempt begins: what is left of the one before is forgotten.
    pub(super) fn begin(&mut self) {
        self.held = None;
        self.opening.clear();
        self.events = None;
        (self.started, self.over) = (false, false);
        let now = Instant::now();
        self.silence = self.shared.silence();
        self.content_until = self.silence.map(|silence| now + silence.first_byte);
        // It is the request's, whichever attempt completes the answer.
        self.total_until = self.silence.and_then(|silence| silence.total).map(|total| self.began + total);
        self.heard_at(now);
    }

    /// Starts the clock of the upstream's next silence.
    pub(super) fn heard(&mut self) {
        self.heard_at(Instant::now());
    }

    fn heard_at(&mut self, now: Instant) {
        self.quiet_until =
            self.silence.map(|silence| now + if self.started { silence.idle } else { silence.first_byte });
        if self.shared.awaits_content() {
            self.quiet_until = earlier(self.quiet_until, self.content_until);
        }
    }

    /// Whether the client went away, and the answer is read on without it.
    pub(super) fn deserted(&self) -> bool {
        self.deserted.is_some()
    }

    /// Whether the request will not be sent again.
    pub(super) fn needs_no_body(&self) -> bool {
        self.shared.is_settled_on()
    }

    /// Whether the answer has ended, although Pingora waits for the end of the upstream's.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Waits for the client, at most until the upstream has been silent too long. May be dropped at any time.
    ///
    /// # Errors
    /// [`UPSTREAM_SILENT`], [`TOTAL_TIMEOUT`]; [`STOPPING`]; that the client went away and nobody has to know the
    /// answer's end; that this took too long.
    pub(super) async fn wait(&mut self, client: &mut ServerSession, expected: Expected) -> Result<Heard> {
        let deadline = earlier(self.quiet_until, self.total_until);
        let event = if let Some(deserted) = &self.deserted {
            // Nobody waits any more, but the bill is still to come.
            let deadline = earlier(self.quiet_until, Some(deserted.until));
            Event::Rang(poll_fn(|cx| self.alarm.poll_ring(cx, &self.shared.stop, deadline)).await)
        } else {
            let mut listening = pin!(listen(client, expected));
            poll_fn(|cx| match listening.as_mut().poll(cx) {
                Poll::Ready(heard) => Poll::Ready(Event::Heard(heard)),
                Poll::Pending => self.alarm.poll_ring(cx, &self.shared.stop, deadline).map(Event::Rang),
            })
            .await
        };
        match event {
            Event::Heard(Ok(body)) => Ok(Heard::Body(body)),
            Event::Heard(Err(_)) if self.desert(client) => Ok(Heard::Left),
            Event::Heard(Err(error)) => Err(error),
            Event::Rang(Ring::Stopping) => Error::e_explain(STOPPING, "the process ends"),
            Event::Rang(Ring::Overdue) if self.deserted() => {
                Err(gone("the client went away and the answer took too long to end"))
            }
            Event::Rang(Ring::Overdue) => Err(self.overdue(self.total_until == deadline)),
        }
    }

    /// Ends the answer of an upstream that took too long, or of a process that stops, if it is an event stream that has
    /// begun. After any other `error` there is nothing to say.
    pub(super) async fn break_off(&mut self, client: &mut ServerSession, error: &Error) -> Result<()> {
        let why = match error.etype() {
            _ if is_overdue(error) => Ended::Broken,
            of if *of == STOPPING => Ended::Stopping,
            _ => return Ok(()),
        };
        if self.shared.ended().is_none()
            && self.deserted.is_none()
            && let Some(frame) = self.end_events(why)
        {
            self.telling = true;
            client.response_duplex_vec(vec![HttpTask::Body(Some(frame), true)]).await?;
            self.telling = false;
        }
        Ok(())
    }

    /// The answer failed with `error`. Where it was ended properly all the same, the upstream is let go and the failure is
    /// none to Pingora, which would close the connection to the client right behind that end: a client that has sent its
    /// next request by then would find it reset.
    ///
    /// # Errors
    /// `error`, where the client cannot know that the answer has ended.
    pub(super) fn let_go(&mut self, error: Box<Error>) -> Result<bool> {
        self.over = self.shared.ended().is_some() && !self.telling && self.shared.close_upstream();
        if self.over { Ok(true) } else { Err(error) }
    }

    /// Passes on what came of the answer. True when it is complete.
    pub(super) async fn pass(&mut self, client: &mut ServerSession, tasks: Vec<HttpTask>) -> Result<bool> {
        if self.over {
            return Ok(true);
        }
        if self.telling {
            return Err(gone("the client took too long for the end of its answer"));
        }
        self.started = true;
        let now = Instant::now();
        self.heard_at(now);
        if let Some(error) = self.too_late(&tasks, now) {
            self.break_off(client, &error).await?;
            return self.let_go(error);
        }
        let Some(tasks) = self.hold_opening(tasks)? else {
            return Ok(false);
        };
        if tasks.iter().any(|task| matches!(task, HttpTask::Failed(_))) {
            self.shared.set_flaw(Flaw::Broke);
        }
        let tasks = self.whole_frames(tasks);
        let Some(tasks) = self.hold(tasks) else {
            return Ok(false);
        };
        if !self.paid().await {
            return self.end_unpaid(client, tasks).await;
        }
        if tasks.is_empty() {
            return Ok(false);
        }
        let complete = self.deliver(client, tasks).await?;
        if self.events.as_ref().is_some_and(EventStream::is_damaged) {
            // The upstream has more to send, and nobody to send it to.
            return self.let_go(Error::explain(DAMAGED, "a frame is not what was sent").into_up());
        }
        Ok(complete)
    }

    /// Whether there is money for everything so far.
    pub(super) async fn paid(&self) -> bool {
        self.shared.purse.suffices().await
    }

    /// Ends an answer that nothing is left to pay for: what came last is not paid, and does not go out.
    ///
    /// # Errors
    /// [`BUDGET_SPENT`], unless it was [let go](Self::let_go).
    pub(super) async fn end_unpaid(&mut self, client: &mut ServerSession, mut tasks: Vec<HttpTask>) -> Result<bool> {
        if let Some(frame) = self.end_events(Ended::BudgetSpent) {
            tasks.retain(|task| matches!(task, HttpTask::Header(..)));
            tasks.push(HttpTask::Body(Some(frame), true));
            self.deliver(client, tasks).await?;
        }
        self.let_go(Error::explain(BUDGET_SPENT, "nothing is left to pay for more of this answer"))
    }

    /// The client went away. True when the answer is to be read on.
    fn desert(&mut self, client: &mut ServerSession) -> bool {
        if let Some(drain) = self.shared.desert() {
            self.deserted = Some(Deserted { until: Instant::now() + drain.timeout, bytes_left: drain.bytes_max });
            client.set_keepalive(None);
        }
        self.deserted.is_some()
    }

    /// Whether time is up although bytes come: it would never be, between two of them.
    fn too_late(&self, tasks: &[HttpTask], now: Instant) -> Option<Box<Error>> {
        let past = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        if self.deserted() || tasks.iter().any(HttpTask::is_end) {
            return None;
        }
        if past(self.total_until) {
            return Some(self.overdue(true));
        }
        (self.shared.awaits_content() && past(self.content_until)).then(|| self.overdue(false))
    }

    /// The error of an upstream that has used up its time: `in_all`, or that of its next byte.
    fn overdue(&self, in_all: bool) -> Box<Error> {
        if in_all {
            self.shared.set_flaw(Flaw::TooLong);
            return Error::explain(TOTAL_TIMEOUT, "the upstream's answer was not complete within its time");
        }
        self.shared.set_flaw(Flaw::Silent);
        Error::explain(UPSTREAM_SILENT, "no byte or no content of the upstream within its time")
    }

    /// Keeps a stream back while it has no content and another deployment may be asked in its place.
    ///
    /// # Errors
    /// Its failure or its end, of which nothing has left.
    fn hold_opening(&mut self, tasks: Vec<HttpTask>) -> Result<Option<Vec<HttpTask>>> {
        if self.opening.is_empty() && !(begins(&tasks) && self.shared.holds_opening()) {
            return Ok(Some(tasks));
        }
        self.opening.extend(tasks);
        if !self.shared.holds_opening() {
            return Ok(Some(std::mem::take(&mut self.opening)));
        }
        let Some(end) = self.opening.iter().position(HttpTask::is_end) else {
            return Ok(None);
        };
        self.shared.set_flaw(Flaw::Broke);
        match self.opening.swap_remove(end) {
            HttpTask::Failed(error) => Err(error),
            _ => Err(Error::explain(BROKE_FIRST, "the stream ended before its content").into_up()),
        }
    }

    /// Keeps back what of an event stream is not yet a whole frame; a stream that breaks gets its exception frame.
    fn whole_frames(&mut self, tasks: Vec<HttpTask>) -> Vec<HttpTask> {
        if begins(&tasks) {
            self.events = self.shared.take_last_words().map(EventStream::new);
        }
        let Some(events) = &mut self.events else {
            return tasks;
        };
        // Which shows at the end.
        if tasks.iter().any(HttpTask::is_end) && self.shared.ended_badly() == Some(Flaw::Short) {
            events.falls_short();
        }
        let tasks = events.pass(tasks, self.shared.whole_bytes());
        if let Some(ended) = events.ended() {
            self.shared.set_ended(ended);
            if ended == Ended::Broken {
                self.shared.set_flaw(if events.is_damaged() { Flaw::Damaged } else { Flaw::Broke });
            }
        }
        tasks
    }

    /// The frame that ends an event stream before its time, if the answer is one.
    fn end_events(&mut self, why: Ended) -> Option<Bytes> {
        let frame = self.events.as_mut()?.end(why)?;
        self.shared.set_ended(why);
        Some(frame)
    }

    /// Hands `tasks` to the client, or drops them when it went away. True when the answer is complete.
    async fn deliver(&mut self, client: &mut ServerSession, tasks: Vec<HttpTask>) -> Result<bool> {
        let ends = tasks.iter().any(HttpTask::is_end);
        if let Some(deserted) = &mut self.deserted {
            for task in tasks {
                match task {
                    HttpTask::Failed(error) => return Err(error),
                    HttpTask::Body(Some(data), _) => {
                        deserted.bytes_left = deserted.bytes_left.checked_sub(data.len()).ok_or_else(too_long)?;
                    }
                    _ => {}
                }
            }
            return Ok(ends);
        }
        let failed = tasks.iter().any(|task| matches!(task, HttpTask::Failed(_)));
        match self.write(client, tasks).await {
            Ok(ended) => Ok(ended),
            Err(_) if !failed && self.desert(client) => Ok(ends),
            Err(error) => Err(error),
        }
    }

    /// Writes, at most for as long as a client may take for it.
    async fn write(&mut self, client: &mut ServerSession, tasks: Vec<HttpTask>) -> Result<bool> {
        let Some(pace) = &mut self.pace else {
            return client.response_duplex_vec(tasks).await;
        };
        let bytes = tasks.iter().map(body_bytes).sum();
        let mut writing = pin!(client.response_duplex_vec(tasks));
        // As a rule there is room for it in the socket, and nothing waits for the client.
        let (written, waited) = match futures::poll!(writing.as_mut()) {
            Poll::Ready(written) => (written, Duration::ZERO),
            Poll::Pending => {
                let began = Instant::now();
                let written = pingora_timeout::timeout(pace.patience(bytes), writing).await;
                (written.unwrap_or_else(|_elapsed| Err(gone(TOO_SLOW))), began.elapsed())
            }
        };
        let ended = written?;
        if ended || pace.took(bytes, waited) { Ok(ended) } else { Err(gone(TOO_SLOW)) }
    }

    /// Keeps `tasks` back while the answer may still gain a header. Gives them all when the answer is complete or has
    /// grown too large. Of one that failed nothing is given but the failure: the client can still be told by an error.
    fn hold(&mut self, tasks: Vec<HttpTask>) -> Option<Vec<HttpTask>> {
        if self.held.is_none() && !(begins(&tasks) && self.shared.take_hold()) {
            return Some(tasks);
        }
        let held = self.held.get_or_insert_with(|| Held { tasks: Vec::with_capacity(4), bytes: 0 });
        for task in tasks {
            if let HttpTask::Body(Some(data), _) = &task {
                held.bytes = held.bytes.saturating_add(data.len());
            }
            held.tasks.push(task);
        }
        if let Some(failure) = held.tasks.iter().position(|task| matches!(task, HttpTask::Failed(_))) {
            let held = self.held.take()?;
            return Some(held.tasks.into_iter().skip(failure).collect());
        }
        if !held.tasks.iter().any(HttpTask::is_end) && held.bytes <= HELD_BYTES_MAX {
            return None;
        }
        let mut tasks = self.held.take().map(|held| held.tasks).unwrap_or_default();
        let late = self.shared.take_late_headers();
        if let Some(HttpTask::Header(header, _)) = tasks.iter_mut().find(|task| matches!(task, HttpTask::Header(..))) {
            respond::add(header, late);
        }
        Some(tasks)
    }
}

/// Waits for what is expected, or for the client to go away.
async fn listen(client: &mut ServerSession, expected: Expected) -> Result<Option<Bytes>> {
    match expected {
        Expected::Body => client.read_request_body().await.map_err(Error::into_down),
        Expected::Nothing => client.read_body_or_idle(true).await,
        Expected::Patience => match client.watch_h2_stream_close() {
            Some(close) => {
                Err(gone(format!("the client reset its request: {}", close.await.map_err(Error::into_down)?)))
            }
            None => std::future::pending().await,
        },
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

fn body_bytes(task: &HttpTask) -> usize {
    match task {
        HttpTask::Body(Some(data), _) => data.len(),
        _ => 0,
    }
}

/// Whether an answer's header is among `tasks`.
fn begins(tasks: &[HttpTask]) -> bool {
    tasks.iter().any(|task| matches!(task, HttpTask::Header(header, _) if !header.status.is_informational()))
}

fn too_long() -> Box<Error> {
    gone("the client went away and the answer is too long to be read on")
}

fn gone(explanation: impl Into<pingora_core::ImmutStr>) -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, explanation).into_down()
}
