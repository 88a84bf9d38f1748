//! Turns an answer's pieces and a fault into steps, and a list of steps into an HTTP body that follows them. Every fault
//! that happens after the header is an edit of the list; nothing else knows about faults in bodies.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::behaviour::Fault;
use crate::concurrency::InFlight;
use crate::connection::Link;
use crate::eventstream;

/// Time for what was written to leave before the connection is broken.
const FLUSH: Duration = Duration::from_millis(20);

/// One thing a body does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Send(Bytes),
    /// Starts the clock of `Until`.
    Start,
    /// Waits until so long after the start.
    Until(Duration),
    Wait(Duration),
    /// Never goes on.
    Stall,
    /// Breaks the HTTP message.
    Abort,
    /// Breaks the connection with a TCP reset.
    Reset,
}

/// How far a body came; shared with the record of its request.
#[derive(Debug, Default)]
pub struct Progress {
    pub bytes_sent: AtomicU64,
    /// Every step was taken. False for a body that its client dropped.
    pub finished: AtomicBool,
}

/// A body made of steps.
pub struct Playback {
    steps: VecDeque<Step>,
    timer: Option<Pin<Box<Sleep>>>,
    started: Option<Instant>,
    on_first_byte: Option<Box<dyn FnOnce() + Send>>,
    on_end: Option<Box<dyn FnOnce(u64) + Send>>,
    in_flight: Option<InFlight>,
    link: Arc<Link>,
    progress: Arc<Progress>,
    /// Announced length that is still to come; `None` for streams.
    announced: Option<u64>,
}

impl Playback {
    pub fn new(steps: Vec<Step>, announced: Option<u64>, link: Arc<Link>, progress: Arc<Progress>) -> Self {
        Self {
            steps: steps.into(),
            timer: None,
            started: None,
            on_first_byte: None,
            on_end: None,
            in_flight: None,
            link,
            progress,
            announced,
        }
    }

    /// Runs `action` when the first byte is handed to the connection.
    #[must_use]
    pub fn on_first_byte(mut self, action: impl FnOnce() + Send + 'static) -> Self {
        self.on_first_byte = Some(Box::new(action));
        self
    }

    /// Runs `action` when the last byte was handed to the connection, or nobody waits for it any more; with the number
    /// of bytes that were.
    #[must_use]
    pub fn on_end(mut self, action: impl FnOnce(u64) + Send + 'static) -> Self {
        self.on_end = Some(Box::new(action));
        self
    }

    /// Ends `in_flight` with this body.
    #[must_use]
    pub fn counted(mut self, in_flight: Option<InFlight>) -> Self {
        self.in_flight = in_flight;
        self
    }

    fn end(&mut self) {
        self.in_flight = None;
        if let Some(action) = self.on_end.take() {
            action(self.progress.bytes_sent.load(Ordering::Relaxed));
        }
    }

    fn sent(&mut self, bytes: &Bytes) {
        if let Some(action) = self.on_first_byte.take() {
            action();
        }
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.progress.bytes_sent.fetch_add(count, Ordering::Relaxed);
        self.announced = self.announced.map(|left| left.saturating_sub(count));
        if self.steps.is_empty() {
            self.progress.finished.store(true, Ordering::Relaxed);
            self.end();
        }
    }

    /// Waits for the running timer, if any.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(timer) = &mut self.timer {
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
        }
        Poll::Ready(())
    }
}

impl Drop for Playback {
    fn drop(&mut self) {
        self.end();
    }
}

impl http_body::Body for Playback {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
            let Some(step) = self.steps.pop_front() else {
                self.progress.finished.store(true, Ordering::Relaxed);
                return Poll::Ready(None);
            };
            match step {
                Step::Send(bytes) => {
                    self.sent(&bytes);
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Step::Start => self.started = Some(Instant::now()),
                Step::Until(after) => {
                    let started = *self.started.get_or_insert_with(Instant::now);
                    self.timer = Some(Box::pin(tokio::time::sleep_until(started + after)));
                }
                Step::Wait(time) => self.timer = Some(Box::pin(tokio::time::sleep(time))),
                Step::Stall => {
                    // Nobody wakes this body any more; the connection drops it when the client leaves.
                    self.steps.push_front(Step::Stall);
                    return Poll::Pending;
                }
                Step::Abort => return Poll::Ready(Some(Err(io::Error::other("cut on demand")))),
                Step::Reset => {
                    self.link.reset();
                    return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.timer.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The steps that play `pieces` at `rate_hz` (0: at once) with `fault`. `framed` says that the pieces are event-stream
/// frames.
pub fn plan(pieces: &[Bytes], framed: bool, rate_hz: u32, fault: Option<&Fault>) -> Vec<Step> {
    let halves;
    let pieces = match pieces {
        [whole] if fault.is_some() && !framed => {
            let middle = whole.len() / 2;
            halves = [whole.slice(..middle), whole.slice(middle..)];
            &halves[..]
        }
        several => several,
    };
    let mut pieces = pieces.to_vec();
    let middle = pieces.len() / 2;
    let at = |after_frames: &Option<usize>| after_frames.unwrap_or(middle).min(pieces.len());
    let mut tail = Vec::new();
    match fault {
        Some(Fault::Cut { after_frames, clean }) => {
            pieces.truncate(at(after_frames));
            tail = break_off(*clean);
        }
        Some(Fault::CutMidFrame { after_frames, bytes, clean }) => {
            let kept = at(after_frames).min(pieces.len().saturating_sub(1));
            pieces.truncate(kept + 1);
            if let Some(last) = pieces.last_mut() {
                *last = last.slice(..bytes.unwrap_or(last.len() / 2).min(last.len().saturating_sub(1)));
            }
            tail = break_off(*clean);
        }
        Some(Fault::Reset { after_frames: Some(after) }) => {
            pieces.truncate(at(&Some(*after)));
            tail = vec![Step::Wait(FLUSH), Step::Reset];
        }
        Some(Fault::StallMidStream { after_frames, bytes, ms }) => {
            let mut rest = pieces.split_off(at(after_frames));
            if let (Some(bytes), Some(next)) = (*bytes, rest.first_mut()) {
                pieces.push(next.split_to(bytes.min(next.len())));
            }
            tail.push(ms.map_or(Step::Stall, |ms| Step::Wait(Duration::from_millis(ms))));
            tail.extend(rest.into_iter().map(Step::Send));
        }
        Some(Fault::ExceptionFrame { after_frames, name, message }) if framed => {
            pieces.truncate(at(after_frames));
            pieces.push(eventstream::exception(name, message.as_deref().unwrap_or("injected on demand")));
        }
        Some(Fault::ErrorFrame { after_frames, code, message }) if framed => {
            pieces.truncate(at(after_frames));
            pieces.push(eventstream::error(code, message.as_deref().unwrap_or("injected on demand")));
        }
        Some(Fault::BadCrc { frame }) if framed => {
            if let Some(piece) = pieces.get_mut(*frame) {
                *piece = with_last_byte_flipped(piece);
            }
        }
        Some(Fault::SlowBody { bytes, interval_ms }) => return trickle(&pieces.concat(), *bytes, *interval_ms),
        _ => {}
    }
    let mut steps = paced(pieces, rate_hz);
    steps.extend(tail);
    steps
}

fn paced(pieces: Vec<Bytes>, rate_hz: u32) -> Vec<Step> {
    let mut steps = Vec::with_capacity(pieces.len() * 2);
    for (index, piece) in pieces.into_iter().enumerate() {
        // The first frame goes at once, and starts the clock: its bytes leave together with the header.
        if rate_hz > 0 && index == 0 {
            steps.push(Step::Start);
        } else if rate_hz > 0 {
            let micros = u64::try_from(index).unwrap_or(u64::MAX).saturating_mul(1_000_000) / u64::from(rate_hz);
            steps.push(Step::Until(Duration::from_micros(micros)));
        }
        steps.push(Step::Send(piece));
    }
    steps
}

fn break_off(clean: bool) -> Vec<Step> {
    if clean { Vec::new() } else { vec![Step::Wait(FLUSH), Step::Abort] }
}

fn trickle(whole: &[u8], bytes: usize, interval_ms: u64) -> Vec<Step> {
    let pause = Step::Wait(Duration::from_millis(interval_ms));
    let pieces = whole.chunks(bytes.max(1)).map(|piece| Step::Send(Bytes::copy_from_slice(piece)));
    pieces.flat_map(|send| [send, pause.clone()]).collect()
}

fn with_last_byte_flipped(frame: &Bytes) -> Bytes {
    let mut bytes = frame.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 0xff;
    }
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(count: usize) -> Vec<Bytes> {
        (0..count).map(|number| eventstream::event("chunk", format!("{{\"n\":{number}}}").as_bytes())).collect()
    }

    fn sent(steps: &[Step]) -> Vec<Bytes> {
        let bytes =
            steps.iter().filter_map(|step| if let Step::Send(bytes) = step { Some(bytes.clone()) } else { None });
        bytes.collect()
    }

    #[test]
    fn without_a_fault_every_piece_is_sent_in_time() {
        let steps = plan(&frames(3), true, 100, None);
        assert_eq!(sent(&steps), frames(3));
        assert_eq!(steps.get(4), Some(&Step::Until(Duration::from_millis(20))));
        assert_eq!(plan(&frames(3), true, 0, None).len(), 3);
    }

    #[test]
    fn cuts_end_between_or_inside_frames() {
        let cut = plan(&frames(4), true, 0, Some(&Fault::Cut { after_frames: Some(1), clean: false }));
        assert_eq!((sent(&cut), cut.last()), (frames(1), Some(&Step::Abort)));
        let inside = plan(&frames(4), true, 0, Some(&mid_frame(1, None)));
        let last = frames(4)[1].clone();
        assert_eq!(sent(&inside), [frames(1)[0].clone(), last.slice(..last.len() / 2)]);
        for (bytes, left) in [(5, 5), (usize::MAX, last.len() - 1)] {
            let inside = plan(&frames(4), true, 0, Some(&mid_frame(1, Some(bytes))));
            assert_eq!(sent(&inside)[1], last.slice(..left));
        }
        let only = plan(&frames(1), true, 0, Some(&Fault::Cut { after_frames: Some(1), clean: false }));
        assert_eq!((sent(&only), only.last()), (frames(1), Some(&Step::Abort)), "a frame is never two pieces");
        let whole =
            plan(&[Bytes::from_static(b"abcd")], false, 0, Some(&Fault::Cut { after_frames: None, clean: true }));
        assert_eq!(sent(&whole), [Bytes::from_static(b"ab")]);
    }

    fn mid_frame(after: usize, bytes: Option<usize>) -> Fault {
        Fault::CutMidFrame { after_frames: Some(after), bytes, clean: true }
    }

    #[test]
    fn a_stall_inside_a_frame_loses_no_byte() {
        let fault = Fault::StallMidStream { after_frames: Some(1), bytes: Some(7), ms: Some(1) };
        let steps = plan(&frames(3), true, 0, Some(&fault));
        assert_eq!(sent(&steps).concat(), frames(3).concat());
        assert_eq!(steps.get(1), Some(&Step::Send(frames(3)[1].slice(..7))));
        assert_eq!(steps.get(2), Some(&Step::Wait(Duration::from_millis(1))));
    }

    #[test]
    fn exceptions_take_the_place_of_the_rest() {
        let fault = Fault::ExceptionFrame { after_frames: Some(2), name: "throttlingException".into(), message: None };
        let pieces = sent(&plan(&frames(5), true, 0, Some(&fault)));
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[2], eventstream::exception("throttlingException", "injected on demand"));
    }

    #[test]
    fn a_slow_body_is_the_same_body() {
        let steps = plan(&frames(2), true, 0, Some(&Fault::SlowBody { bytes: 7, interval_ms: 1 }));
        assert_eq!(sent(&steps).concat(), frames(2).concat());
    }
}
