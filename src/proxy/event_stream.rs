//! An event stream on its way to the client: whole frames only, and an end that no client can mistake.
//!
//! A stream that breaks, falls silent or runs out of budget ends with an exception frame of a name that its operation
//! models, in place of the frame that had begun or was damaged on its way; boto3 1.44.5 and anthropic 2.12.0 take a bare end for success, even
//! inside a frame (tried 2026-11-22). What is no event stream in truth passes as it comes, and no frame can be added.

use bytes::Bytes;
use pingora_core::protocols::http::HttpTask;

use crate::aws::error_body::exception_frame;
use crate::aws::eventstream::cut::Cutter;
use crate::aws::eventstream::decode::Limits;

const BROKEN: &str = "The connection to the model broke. What came so far is incomplete.";
const STOPPED: &str = "The proxy is stopping. What came so far is incomplete; try again.";
const SPENT: &str = "The budget is used up, so the answer ends here, incomplete. Ask for a larger budget, or set a smaller \
                     maximum of tokens.";

/// The exceptions that end an event stream, by names that its operation models.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastWords {
    pub broken: &'static str,
    pub budget_spent: &'static str,
}

impl LastWords {
    /// By what an operation models; SDKs lose the message of any other name.
    pub(super) fn of(modelled: &[&'static str]) -> Option<Self> {
        let first = |names: [&'static str; 3]| names.into_iter().find(|name| modelled.contains(name));
        Some(Self {
            broken: first(["serviceUnavailableException", "internalServerException", "validationException"])?,
            // The streams of models have no quota among their names, and a throttle would be tried again.
            budget_spent: first(["serviceQuotaExceededException", "validationException", "internalServerException"])?,
        })
    }
}

/// Why we ended an event stream with an exception frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Broken,
    BudgetSpent,
    /// The process ends.
    Stopping,
}

/// One answer that is an event stream.
#[derive(Debug)]
pub(super) struct EventStream {
    exceptions: LastWords,
    cutter: Cutter,
    over: bool,
    /// What came is not all, although it ends as if it were.
    short: bool,
    ended: Option<Ended>,
}

impl EventStream {
    pub(super) fn new(exceptions: LastWords) -> Self {
        Self { exceptions, cutter: Cutter::new(Limits::default()), over: false, short: false, ended: None }
    }

    /// Whether it was ended with an exception frame of ours.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// The answer's end is not the end of what it had to say.
    pub(super) fn falls_short(&mut self) {
        self.short = true;
    }

    /// Whether a frame was not what was sent: nothing that follows can be passed on.
    pub(super) fn is_damaged(&self) -> bool {
        self.cutter.is_damaged()
    }

    /// What of `tasks` may go to the client now; possibly nothing. The first `whole_bytes` of the stream have been found to
    /// be whole frames.
    pub(super) fn pass(&mut self, tasks: Vec<HttpTask>, whole_bytes: u64) -> Vec<HttpTask> {
        if bytes_alone(&tasks).is_some_and(|bytes| self.cutter.skip(bytes, whole_bytes)) {
            return tasks;
        }
        let mut passing = Vec::with_capacity(tasks.len() + 1);
        for task in tasks {
            match task {
                HttpTask::Body(Some(bytes), end) => {
                    self.cutter.push(bytes, &mut |frames| passing.push(HttpTask::Body(Some(frames), false)));
                    if self.is_damaged() {
                        if !self.over
                            && let Some(frame) = self.end(Ended::Broken)
                        {
                            log::warn!("the checksum of a frame of the upstream does not match");
                            passing.push(HttpTask::Body(Some(frame), true));
                        }
                        return passing;
                    }
                    if end {
                        self.close(HttpTask::Body(None, true), &mut passing);
                    }
                }
                HttpTask::Body(None, true) | HttpTask::Trailer(_) | HttpTask::Done | HttpTask::Failed(_) => {
                    self.close(task, &mut passing);
                }
                other => passing.push(other),
            }
        }
        passing
    }

    /// The frame that ends the stream before its time; `None` where the client could not read another frame.
    pub(super) fn end(&mut self, why: Ended) -> Option<Bytes> {
        if !self.cutter.may_add() {
            return None;
        }
        self.over = true;
        self.ended = Some(why);
        Some(Bytes::from(match why {
            Ended::Broken => exception_frame(self.exceptions.broken, BROKEN),
            Ended::Stopping => exception_frame(self.exceptions.broken, STOPPED),
            Ended::BudgetSpent => exception_frame(self.exceptions.budget_spent, SPENT),
        }))
    }

    /// The upstream's end, or an exception in its place if a frame is missing its end or the connection broke.
    fn close(&mut self, end: HttpTask, passing: &mut Vec<HttpTask>) {
        let broke = matches!(end, HttpTask::Failed(_)) || self.cutter.held_bytes() > 0 || self.short;
        if broke
            && !self.over
            && let Some(frame) = self.end(Ended::Broken)
        {
            log::warn!("upstream broke in mid-stream, {} bytes into a frame: {end:?}", self.cutter.held_bytes());
            passing.push(HttpTask::Body(Some(frame), true));
            return;
        }
        self.over = true;
        match (end, passing.last_mut()) {
            // One task with both is one write.
            (HttpTask::Body(None, true), Some(HttpTask::Body(_, ends))) => *ends = true,
            (end, _) => passing.push(end),
        }
    }
}

/// How many bytes `tasks` are, where they are nothing else.
fn bytes_alone(tasks: &[HttpTask]) -> Option<u64> {
    tasks.iter().try_fold(0, |sum, task| match task {
        HttpTask::Body(Some(bytes), false) if !bytes.is_empty() => Some(sum + bytes.len() as u64),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use pingora_core::{Error, ErrorType};

    use super::*;
    use crate::aws::eventstream::decode::Decoder;
    use crate::aws::eventstream::encode::{HeaderValue, frame};
    use crate::aws::operation::Streaming;
    use crate::aws::route;

    const NAMES: [&str; 2] = ["serviceUnavailableException", "validationException"];

    fn stream() -> EventStream {
        EventStream::new(LastWords::of(&NAMES).unwrap())
    }

    fn event() -> Vec<u8> {
        frame(&[(":message-type", HeaderValue::String("event"))], b"{}")
    }

    fn body(bytes: &[u8], end: bool) -> HttpTask {
        HttpTask::Body(Some(Bytes::copy_from_slice(bytes)), end)
    }

    fn broken() -> HttpTask {
        HttpTask::Failed(Error::explain(ErrorType::ConnectionClosed, "cut"))
    }

    /// The bytes of the tasks, how often they end the answer, and the exceptions among their frames.
    fn sent(tasks: &[HttpTask]) -> (Vec<u8>, usize, Vec<String>) {
        let mut bytes = Vec::new();
        for task in tasks {
            if let HttpTask::Body(Some(data), _) = task {
                assert!(!data.is_empty());
                bytes.extend_from_slice(data);
            }
        }
        let mut exceptions = Vec::new();
        Decoder::new(Limits::default())
            .push(&bytes, &mut |frame| exceptions.extend(frame.exception_type().map(str::to_owned)))
            .unwrap_or_default();
        (bytes, tasks.iter().filter(|task| task.is_end()).count(), exceptions)
    }

    #[test]
    fn a_whole_stream_passes_and_ends_as_it_came() {
        let event = event();
        for tasks in [
            vec![body(&event, true)],
            vec![body(&event, false), HttpTask::Done],
            vec![body(&event, false), HttpTask::Body(None, true)],
            vec![body(&event[..9], false), body(&event[9..], true)],
            vec![body(&event, false), body(b"", true)],
            vec![body(&event, false), HttpTask::Trailer(None)],
        ] {
            let mut stream = stream();
            let passed = stream.pass(tasks, 0);
            assert_eq!(sent(&passed), (event.clone(), 1, Vec::new()), "{passed:?}");
            assert_eq!(stream.ended(), None);
        }
    }

    #[test]
    fn frames_that_were_checked_before_pass_as_they_are() {
        let event = event();
        let bytes = event.len() as u64;
        let mut stream = stream();
        for before in 0..3 {
            let passed = stream.pass(vec![body(&event, false)], (before + 1) * bytes);
            assert_eq!(sent(&passed), (event.clone(), 0, Vec::new()));
        }
        // The end of a frame is not known to be one, and with the end of the stream it is looked at.
        assert!(stream.pass(vec![body(&event[..9], false)], 3 * bytes).is_empty());
        let passed = stream.pass(vec![body(&event[9..], true)], 4 * bytes);
        assert_eq!(sent(&passed), (event, 1, Vec::new()));
    }

    #[test]
    fn a_break_and_an_end_inside_a_frame_become_one_exception() {
        let event = event();
        for at in 0..event.len() {
            let begun = [event.as_slice(), &event[..at]].concat();
            let ends = [
                vec![body(&begun, false), broken()],
                vec![body(&begun, true)],
                vec![body(&begun, false), HttpTask::Done],
                vec![body(&begun, true), HttpTask::Done],
                vec![body(&begun, false), HttpTask::Trailer(None)],
            ];
            for tasks in ends {
                let breaks = at > 0 || tasks.iter().any(|task| matches!(task, HttpTask::Failed(_)));
                let mut stream = stream();
                let passed = stream.pass(tasks, 0);
                let (bytes, _, exceptions) = sent(&passed);
                assert_eq!(&bytes[..event.len()], &event, "cut at {at}");
                assert_eq!(exceptions, if breaks { vec![NAMES[0].to_owned()] } else { Vec::new() }, "cut at {at}");
                assert_eq!(stream.ended(), breaks.then_some(Ended::Broken));
                assert!(passed.last().is_some_and(HttpTask::is_end), "{passed:?}");
            }
        }
    }

    #[test]
    fn a_damaged_frame_is_replaced_by_an_exception_that_ends_the_stream() {
        let event = event();
        let mut bad = event.clone();
        *bad.last_mut().unwrap() ^= 1;
        let mut stream = stream();
        let passed = stream.pass(vec![body(&[event.as_slice(), &bad, &event].concat(), false), body(&event, true)], 0);
        let (bytes, ends, exceptions) = sent(&passed);
        assert!(bytes.starts_with(&event) && stream.is_damaged());
        assert_eq!((ends, exceptions, stream.ended()), (1, vec![NAMES[0].to_owned()], Some(Ended::Broken)));
        assert!(stream.pass(vec![body(&event, true)], 0).is_empty());
    }

    #[test]
    fn an_end_before_the_last_event_becomes_an_exception() {
        let event = event();
        for end in [HttpTask::Done, HttpTask::Body(None, true), HttpTask::Trailer(None)] {
            let mut stream = stream();
            stream.falls_short();
            let passed = stream.pass(vec![body(&event, false), end], 0);
            assert_eq!(sent(&passed).2, [NAMES[0]]);
        }
    }

    #[test]
    fn a_part_of_a_frame_waits_and_nothing_is_sent_for_it() {
        let event = event();
        let mut stream = stream();
        assert!(stream.pass(vec![body(&event[..20], false)], 0).is_empty());
        let frame = stream.end(Ended::BudgetSpent).unwrap();
        assert_eq!(sent(&[HttpTask::Body(Some(frame), true)]).2, [NAMES[1]]);
        assert_eq!(stream.ended(), Some(Ended::BudgetSpent));
    }

    #[test]
    fn what_is_no_event_stream_breaks_as_it_does() {
        let mut stream = stream();
        let passed = stream.pass(vec![body(b"{\"this\":\"is no event stream\"}", false), broken()], 0);
        assert!(matches!(passed.as_slice(), [HttpTask::Body(Some(_), false), HttpTask::Failed(_)]), "{passed:?}");
        assert_eq!((stream.end(Ended::Broken), stream.ended()), (None, None));
    }

    #[test]
    fn every_event_stream_can_be_ended_by_names_that_its_operation_models() {
        let mut streams = 0;
        for operation in route::operations() {
            if !matches!(operation.streaming, Streaming::EventStream | Streaming::Bidirectional) {
                continue;
            }
            streams += 1;
            let modelled = operation.stream_exceptions;
            let words = LastWords::of(modelled).unwrap_or_else(|| panic!("{} has no last words", operation.name));
            for name in [words.broken, words.budget_spent] {
                assert!(modelled.contains(&name), "{}: {name}", operation.name);
            }
        }
        assert_eq!(streams, 12);
    }
}
