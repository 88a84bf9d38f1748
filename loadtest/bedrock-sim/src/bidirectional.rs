//! InvokeModelWithBidirectionalStream: verifies every signed chunk as it arrives and answers while the request is still
//! open, with Nova Sonic's events. Each input event is answered with a text event that echoes it and a `usageEvent` with
//! running totals; usage is billed when the stream ends, as far as the last `usageEvent` that left reported it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::answer::{Answer, Payload, error_answer};
use crate::behaviour::Fault;
use crate::billing::Bill;
use crate::chunk_signature::{ChunkVerifier, STREAMING_PAYLOAD};
use crate::concurrency::InFlight;
use crate::connection::Link;
use crate::eventstream;
use crate::operations;
use crate::playback::Progress;
use crate::record::count;
use crate::service::{Arrival, Body, Finding, Identity, Shared};
use crate::usage::Usage;

const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

/// What leaves while the request is still arriving.
enum Live {
    Bytes(Bytes),
    Abort,
    Reset,
}

pub async fn serve(arrival: Arrival, body: Incoming) -> io::Result<Response<Body>> {
    let operation = arrival.recognise(b"");
    let Identity { auth, refused, verified } =
        arrival.shared.identify(&arrival.head, &arrival.host, operation, STREAMING_PAYLOAD);
    let violations = arrival.violations();
    let body_sha256 = STREAMING_PAYLOAD.to_owned();
    let mut finding = Finding { operation, auth, violations, body_sha256, ..Finding::default() };
    if let Some(answer) = arrival.refusal(&finding, refused.as_ref()) {
        return Ok(arrival.respond(&answer, None, finding));
    }
    let Some((operation, verified)) = operation.zip(verified) else {
        let answer = error_answer(403, "AccessDeniedException", "This operation needs a signature.", None);
        return Ok(arrival.respond(&answer, None, finding));
    };
    if operation.name != "InvokeModelWithBidirectionalStream" {
        let answer = error_answer(400, "ValidationException", "This operation takes no signed event stream.", None);
        return Ok(arrival.respond(&answer, None, finding));
    }
    finding.model = operations::label(operation, arrival.head.uri.path(), 0);
    arrival.begin(&mut finding);
    arrival.delay(&finding).await;
    if let Some(answer) = arrival.before_header(finding.effect.fault.as_ref()).await? {
        return Ok(arrival.respond(&answer, None, finding));
    }
    let progress = Arc::new(Progress::default());
    let (sender, receiver) = mpsc::channel(16);
    let conversation = Conversation {
        shared: Arc::clone(&arrival.shared),
        request_id: arrival.request_id.clone(),
        region: finding.auth.region.clone(),
        model: finding.effect.billed_model.clone().or_else(|| finding.model.clone()),
        fault: finding.effect.fault.clone(),
        demanded: finding.effect.usage.map(|demanded| Usage::default().overridden(&demanded)),
        usage: Usage::default(),
        reported: Usage::default(),
        sent: 0,
        sender,
    };
    tokio::spawn(conversation.hold(ChunkVerifier::new(verified), body));
    let in_flight = finding.in_flight.take();
    let live = LiveBody { receiver, link: Arc::clone(&arrival.link), progress: Arc::clone(&progress), in_flight };
    let answer = Answer {
        status: 200,
        content_type: EVENT_STREAM.into(),
        headers: Vec::new(),
        payload: Payload::Whole(Bytes::new()),
    };
    Ok(arrival.head_and_body(&answer, finding, progress, live.boxed_unsync()))
}

/// One open stream.
struct Conversation {
    shared: Arc<Shared>,
    request_id: String,
    region: String,
    model: Option<String>,
    fault: Option<Fault>,
    demanded: Option<Usage>,
    usage: Usage,
    /// What the last `usageEvent` that left said.
    reported: Usage,
    sent: usize,
    sender: mpsc::Sender<Live>,
}

impl Conversation {
    async fn hold(mut self, mut chunks: ChunkVerifier, mut body: Incoming) {
        let outcome = self.converse(&mut chunks, &mut body).await;
        if let Err(message) = outcome {
            count(&self.shared.recorder.counts.authentication_failures);
            let frame = eventstream::exception("validationException", &message);
            // A client that left needs no reason.
            drop(self.sender.send(Live::Bytes(frame)).await);
        }
        if !self.reported.is_empty() {
            let bill = Bill { model: self.model.take(), usage: self.reported, ..Bill::default() };
            let operation = "InvokeModelWithBidirectionalStream";
            self.shared.ledger.book(self.request_id, operation, self.region, bill);
        }
    }

    /// Until the request ends, the client leaves, or a fault breaks off. An error says what is wrong with the request.
    async fn converse(&mut self, chunks: &mut ChunkVerifier, body: &mut Incoming) -> Result<(), String> {
        while let Some(frame) = body.frame().await {
            // The client went away; what it was told so far is its bill.
            let Ok(frame) = frame else { return Ok(()) };
            let Ok(data) = frame.into_data() else { continue };
            for inner in chunks.push(&data)? {
                let input = input_event(&inner.payload).ok_or("a chunk is not {\"bytes\": base64 of a JSON event}")?;
                for event in self.reply(&input) {
                    if !self.send(&event).await {
                        return Ok(());
                    }
                }
                self.reported = self.usage;
            }
        }
        if chunks.ended() { Ok(()) } else { Err("the stream ended without its signed empty frame".to_owned()) }
    }

    /// The events that answer one input event.
    fn reply(&mut self, input: &Value) -> [Value; 2] {
        let text = input.to_string();
        let tokens = u64::try_from(text.len().div_ceil(4)).unwrap_or(u64::MAX);
        self.usage.input += tokens;
        self.usage.audio_input += tokens;
        self.usage.output += 5;
        self.usage.audio_output += 10;
        if let Some(demanded) = self.demanded {
            self.usage = demanded;
        }
        let Usage { input, output, audio_input, audio_output, .. } = self.usage;
        let echo = json!({ "event": { "textOutput": { "content": text, "role": "ASSISTANT", "contentId": "c1" } } });
        let usage = json!({ "event": { "usageEvent": {
            "completionId": self.request_id,
            "promptName": "p1",
            "sessionId": self.request_id,
            "details": {
                "delta": {
                    "input": { "speechTokens": tokens, "textTokens": tokens },
                    "output": { "speechTokens": 10, "textTokens": 5 },
                },
                "total": {
                    "input": { "speechTokens": audio_input, "textTokens": input },
                    "output": { "speechTokens": audio_output, "textTokens": output },
                },
            },
            "totalInputTokens": input + audio_input,
            "totalOutputTokens": output + audio_output,
            "totalTokens": input + audio_input + output + audio_output,
        } } });
        [echo, usage]
    }

    /// Sends one event, or the fault whose turn it is; false ends the stream.
    async fn send(&mut self, event: &Value) -> bool {
        let payload = json!({ "bytes": BASE64_STANDARD.encode(event.to_string()) }).to_string();
        let frame = eventstream::event("chunk", payload.as_bytes());
        let due = |after: &Option<usize>| self.sent >= after.unwrap_or(1);
        let last = match &self.fault {
            Some(Fault::Cut { after_frames, clean }) if due(after_frames) => {
                if *clean {
                    return false;
                }
                Live::Abort
            }
            Some(Fault::Reset { after_frames }) if due(after_frames) => Live::Reset,
            Some(Fault::ExceptionFrame { after_frames, name, message }) if due(after_frames) => {
                Live::Bytes(eventstream::exception(name, message.as_deref().unwrap_or("injected on demand")))
            }
            _ => {
                self.sent += 1;
                return self.sender.send(Live::Bytes(frame)).await.is_ok();
            }
        };
        // Whether it still arrives decides nothing: the stream ends here.
        drop(self.sender.send(last).await);
        false
    }
}

fn input_event(payload: &[u8]) -> Option<Value> {
    let wrapper: Value = serde_json::from_slice(payload).ok()?;
    let bytes = BASE64_STANDARD.decode(wrapper.get("bytes")?.as_str()?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The body that a conversation writes.
struct LiveBody {
    receiver: mpsc::Receiver<Live>,
    link: Arc<Link>,
    progress: Arc<Progress>,
    in_flight: Option<InFlight>,
}

impl http_body::Body for LiveBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.receiver.poll_recv(cx).map(|live| match live {
            Some(Live::Bytes(bytes)) => {
                let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.progress.bytes_sent.fetch_add(count, Ordering::Relaxed);
                Some(Ok(Frame::data(bytes)))
            }
            Some(Live::Abort) => Some(Err(io::Error::other("cut on demand"))),
            Some(Live::Reset) => {
                self.link.reset();
                Some(Err(io::ErrorKind::ConnectionReset.into()))
            }
            None => {
                self.progress.finished.store(true, Ordering::Relaxed);
                self.in_flight = None;
                None
            }
        })
    }
}
