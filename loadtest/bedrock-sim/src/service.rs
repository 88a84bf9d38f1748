//! One request from head to answer: what operation it is, whether it may arrive at all, whether it is authentic, which
//! rules apply, what the answer is. The order is AWS's own as far as it is known: framing, operation, signature, content.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, Response, Version};
use sha2::{Digest, Sha256};

use crate::answer::{Answer, Ask, Payload, answer, error_answer};
use crate::behaviour::{Billing, Facts, Fault, Rule, Rules};
use crate::billing::{Bill, Ledger};
use crate::chunk_signature::STREAMING_PAYLOAD;
use crate::concurrency::InFlight;
use crate::connection::Link;
use crate::operations::{self, Asked, Operation};
use crate::playback::{Playback, Progress, plan};
use crate::prices::PriceBook;
use crate::record::{Auth, BODY_BYTES_KEPT, Entry, Recorder, count};
use crate::server::Options;
use crate::sigv4::{self, Refused, Signed, Verified, Verifier};
use crate::text::{hex, uuid};
use crate::{bidirectional, clock, control, violations};

/// The body of every response.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What all requests of a simulator share.
pub struct Shared {
    pub options: Options,
    pub rules: Rules,
    pub recorder: Recorder,
    pub ledger: Ledger,
    verifier: Verifier,
    bearer_tokens: HashSet<String>,
}

/// Who sent a request, and what may be said about it.
pub struct Identity {
    pub auth: Auth,
    pub refused: Option<Refused>,
    /// For checking the chunks of a signed stream.
    pub verified: Option<Verified>,
}

impl Shared {
    pub fn new(options: Options, prices: Option<PriceBook>) -> Self {
        Self {
            rules: Rules::default(),
            recorder: Recorder::new(options.records_max),
            ledger: Ledger::new(prices, options.bill_rows_max),
            verifier: Verifier::new(&options.credentials),
            bearer_tokens: options.bearer_tokens.iter().cloned().collect(),
            options,
        }
    }

    /// Checks signature or bearer token of a request whose body hashes to `payload_hash`.
    pub fn identify(&self, head: &Parts, host: &str, operation: Option<&Operation>, payload_hash: &str) -> Identity {
        let authorization = header(&head.headers, "authorization").unwrap_or_default();
        let region = host_region(host).unwrap_or("us-east-1").to_owned();
        let mut auth = Auth { kind: "none", region, ..Auth::default() };
        let outcome = if let Some(presented) = sigv4::parse(authorization) {
            auth.kind = "sigv4";
            auth.access_key_id = Some(presented.access_key_id.to_owned());
            presented.region.clone_into(&mut auth.region);
            auth.service = Some(presented.service.to_owned());
            check_scope(presented.service, operation, host).and_then(|()| {
                let query = head.uri.query().unwrap_or_default();
                let (path, headers) = (head.uri.path(), &head.headers);
                let signed = Signed { method: head.method.as_str(), path, query, host, headers, payload_hash };
                self.verifier.verify(&presented, &signed, clock::unix_now()).map(Some)
            })
        } else if let Some(token) = authorization.strip_prefix("Bearer ") {
            auth.kind = "bearer";
            if let Some(region) = short_term_key_region(token) {
                auth.region = region;
            }
            self.check_bearer(token, operation).map(|()| None)
        } else {
            let message = "Missing Authentication Token".to_owned();
            Err(Refused { error_type: "MissingAuthenticationTokenException", message })
        };
        let outcome = outcome.and_then(|verified| check_declared_hash(&head.headers, payload_hash).map(|()| verified));
        auth.ok = outcome.is_ok();
        auth.error = outcome.as_ref().err().map(|refused| refused.message.clone());
        match outcome {
            Ok(verified) => Identity { auth, refused: None, verified },
            Err(refused) => Identity { auth, refused: Some(refused), verified: None },
        }
    }

    fn check_bearer(&self, token: &str, operation: Option<&Operation>) -> Result<(), Refused> {
        let denied = |message: &str| Err(Refused { error_type: "AccessDeniedException", message: message.to_owned() });
        if operation.is_some_and(|operation| !operation.bearer) {
            return denied("This operation does not accept a Bedrock API key.");
        }
        if self.bearer_tokens.contains(token) {
            Ok(())
        } else {
            denied("Authentication failed: unknown Bedrock API key.")
        }
    }
}

/// Answers one request. An error breaks the connection.
pub async fn serve(shared: Arc<Shared>, link: Arc<Link>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    if control::is_control(head.uri.path()) {
        return Ok(control::serve(&shared, &head, body).await);
    }
    count(&shared.recorder.counts.requests);
    let arrival = Arrival::new(shared, link, head);
    if header(&arrival.head.headers, "x-amz-content-sha256") == Some(STREAMING_PAYLOAD) {
        return Box::pin(bidirectional::serve(arrival, body)).await;
    }
    match Limited::new(body, arrival.shared.options.body_bytes_max).collect().await {
        Ok(collected) => Box::pin(arrival.serve(collected.to_bytes())).await,
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let answer = error_answer(413, "RequestEntityTooLargeException", "The request body is too large.", None);
            Ok(arrival.respond(&answer, None, Finding::default()))
        }
        Err(error) => Err(io::Error::other(error)),
    }
}

/// A request whose head has arrived.
pub struct Arrival {
    pub shared: Arc<Shared>,
    pub link: Arc<Link>,
    pub head: Parts,
    pub host: String,
    pub number: u64,
    pub request_id: String,
}

/// What was found out about a request, for its record.
#[derive(Default)]
pub struct Finding {
    pub operation: Option<&'static Operation>,
    pub model: Option<String>,
    pub auth: Auth,
    pub violations: Vec<String>,
    pub body: Bytes,
    pub body_sha256: String,
    pub effect: Rule,
    pub in_flight: Option<InFlight>,
}

impl Arrival {
    fn new(shared: Arc<Shared>, link: Arc<Link>, head: Parts) -> Self {
        let authority = head.uri.authority().map(hyper::http::uri::Authority::as_str);
        let host = header(&head.headers, "host").or(authority).unwrap_or_default().to_owned();
        let number = shared.recorder.next_number();
        let request_id = uuid(shared.options.seed, number);
        Self { shared, link, head, host, number, request_id }
    }

    /// The operation, by the rules of `operations`.
    pub fn recognise(&self, body: &[u8]) -> Option<&'static Operation> {
        let scope = header(&self.head.headers, "authorization").and_then(sigv4::parse);
        operations::recognise(&Asked {
            method: self.head.method.as_str(),
            path: self.head.uri.path(),
            host: &self.host,
            amz_target: header(&self.head.headers, "x-amz-target"),
            scope_service: scope.map(|scope| scope.service),
            body,
        })
    }

    /// What must not have arrived.
    pub fn violations(&self) -> Vec<String> {
        let ambiguous = self.link.take_ambiguous_framing();
        let query = self.head.uri.query().unwrap_or_default();
        violations::find(self.head.uri.path(), query, &self.head.headers, ambiguous)
    }

    /// The answer to a request that does not get past the door; `None` for one that does.
    pub fn refusal(&self, finding: &Finding, refused: Option<&Refused>) -> Option<Answer> {
        let counts = &self.shared.recorder.counts;
        if !finding.violations.is_empty() {
            count(&counts.violations);
        }
        if refused.is_some() {
            count(&counts.authentication_failures);
        }
        if finding.operation.is_none() {
            count(&counts.unknown_operations);
        }
        if !finding.violations.is_empty() {
            let message = format!("This must not reach AWS: {}.", finding.violations.join("; "));
            return Some(error_answer(400, "ValidationException", &message, None));
        }
        if let Some(refused) = refused {
            return Some(error_answer(403, refused.error_type, &refused.message, None));
        }
        if finding.operation.is_none() {
            return Some(error_answer(404, "UnknownOperationException", "", None));
        }
        None
    }

    async fn serve(self, body: Bytes) -> io::Result<Response<Body>> {
        let operation = self.recognise(&body);
        let body_sha256 = hex(&Sha256::digest(&body));
        let identity = self.shared.identify(&self.head, &self.host, operation, &body_sha256);
        let violations = self.violations();
        let Identity { auth, refused, .. } = identity;
        let mut finding = Finding { operation, auth, violations, body, body_sha256, ..Finding::default() };
        if let Some(answer) = self.refusal(&finding, refused.as_ref()) {
            return Ok(self.respond(&answer, None, finding));
        }
        let Some(operation) = operation else { return Err(io::Error::other("an unknown operation was not refused")) };
        let json = serde_json::from_slice(&finding.body).unwrap_or(serde_json::Value::Null);
        finding.model = crate::answer::model_of(operation, self.head.uri.path(), &json);
        if operation.name == "GetInferenceProfile" {
            count(&self.shared.recorder.counts.profile_lookups);
        }
        self.begin(&mut finding);
        let fault = finding.effect.fault.clone();
        let make = |finding: &Finding| {
            answer(&Ask {
                operation,
                model: finding.model.as_deref(),
                region: &finding.auth.region,
                path: self.head.uri.path(),
                host: &self.host,
                headers: &self.head.headers,
                body: &finding.body,
                json: &json,
                effect: &finding.effect,
                seed: self.shared.options.seed,
                token_headers: finding.effect.token_headers.unwrap_or(self.shared.options.token_headers),
            })
        };
        let on_arrival =
            finding.effect.bill == Some(Billing::Arrived) && !fault.as_ref().is_some_and(Fault::generates_nothing);
        let early = on_arrival.then(|| {
            let (answer, bill) = make(&finding);
            if let Some(bill) = bill {
                let region = finding.auth.region.clone();
                self.shared.ledger.book(self.request_id.clone(), operation.name.as_str(), region, bill);
            }
            (answer, None)
        });
        self.delay(&finding).await;
        if let Some(answer) = self.before_header(fault.as_ref()).await? {
            return Ok(self.respond(&answer, None, finding));
        }
        let (answer, bill) = early.unwrap_or_else(|| make(&finding));
        Ok(self.respond(&answer, bill, finding))
    }

    /// Finds the rules for a request that is to be answered, and counts it as one.
    pub fn begin(&self, finding: &mut Finding) {
        finding.effect = self.effect(finding);
        let model = finding.model.as_deref().unwrap_or_default();
        let access_key = finding.auth.access_key_id.as_deref().unwrap_or_default();
        finding.in_flight = Some(self.shared.recorder.concurrency.begin(model, access_key));
    }

    /// Waits as long as a rule or the options demand.
    pub async fn delay(&self, finding: &Finding) {
        let demanded = finding.effect.delay_ms.map(Duration::from_millis);
        let delay = demanded.unwrap_or(self.shared.options.first_byte_delay);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    /// The settings that rules make for this request.
    pub fn effect(&self, finding: &Finding) -> Rule {
        self.shared.rules.effect(&Facts {
            model: finding.model.as_deref().unwrap_or_default(),
            path: self.head.uri.path(),
            operation: finding.operation.map_or("", |operation| operation.name.as_str()),
            region: &finding.auth.region,
            host: &self.host,
            access_key_id: finding.auth.access_key_id.as_deref().unwrap_or_default(),
        })
    }

    /// Counts a fault, and lets it happen if it comes before the header: gives the answer it makes, or breaks the
    /// connection.
    pub async fn before_header(&self, fault: Option<&Fault>) -> io::Result<Option<Answer>> {
        let Some(fault) = fault else { return Ok(None) };
        count(&self.shared.recorder.counts.faults);
        match fault {
            Fault::Throttle { retry_after_s } => {
                let message = "Too many requests, please wait before trying again.";
                Ok(Some(error_answer(429, "ThrottlingException", message, *retry_after_s)))
            }
            Fault::Error { status, error_type, message, retry_after_s } => {
                let message = message.as_deref().unwrap_or("injected on demand");
                Ok(Some(error_answer(*status, error_type, message, *retry_after_s)))
            }
            Fault::SlowFirstByte { ms } => {
                tokio::time::sleep(Duration::from_millis(*ms)).await;
                Ok(None)
            }
            Fault::StallBeforeHeader {} => std::future::pending().await,
            Fault::Reset { after_frames: None } => {
                self.link.reset();
                Err(io::ErrorKind::ConnectionReset.into())
            }
            _ => Ok(None),
        }
    }

    /// Records the request and plays its answer.
    pub fn respond(self, answer: &Answer, bill: Option<Bill>, mut finding: Finding) -> Response<Body> {
        let coded = finding.effect.coding.and_then(|coding| coding.apply(answer).ok());
        let answer = coded.as_ref().unwrap_or(answer);
        let progress = Arc::new(Progress::default());
        let rate_hz = finding.effect.frame_rate_hz.unwrap_or(self.shared.options.frame_rate_hz);
        let fault = finding.effect.fault.as_ref();
        let (steps, announced) = match &answer.payload {
            Payload::Whole(bytes) => {
                let length = u64::try_from(bytes.len()).ok();
                (plan(std::slice::from_ref(bytes), false, 0, fault), length)
            }
            Payload::Frames(frames) => (plan(frames, true, rate_hz, fault), None),
            Payload::Events(events) => (plan(events, false, rate_hz, fault), None),
        };
        let mut body = Playback::new(steps, announced, Arc::clone(&self.link), Arc::clone(&progress))
            .counted(finding.in_flight.take());
        if let Some(bill) = bill
            && !fault.is_some_and(Fault::generates_nothing)
        {
            let (shared, request_id) = (Arc::clone(&self.shared), self.request_id.clone());
            let operation = finding.operation.map_or("", |operation| operation.name.as_str());
            let region = finding.auth.region.clone();
            let book = move |bill| shared.ledger.book(request_id, operation, region, bill);
            body = match (&answer.payload, finding.effect.bill) {
                (Payload::Frames(pieces) | Payload::Events(pieces), Some(Billing::Delivered)) => {
                    let whole = pieces.iter().map(Bytes::len).sum::<usize>();
                    body.on_end(move |sent| {
                        if sent > 0 {
                            book(bill.of_stream(sent, u64::try_from(whole).unwrap_or(u64::MAX)));
                        }
                    })
                }
                _ => body.on_first_byte(move || book(bill)),
            };
        }
        self.head_and_body(answer, finding, progress, body.boxed_unsync())
    }

    /// Records the request and builds its response around `body`.
    pub fn head_and_body(
        self,
        answer: &Answer,
        finding: Finding,
        progress: Arc<Progress>,
        body: Body,
    ) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = hyper::StatusCode::from_u16(answer.status).unwrap_or_default();
        let headers = response.headers_mut();
        let own = [("x-amzn-requestid", self.request_id.as_str()), ("content-type", &answer.content_type)];
        let all = own.into_iter().chain(answer.headers.iter().map(|(name, value)| (*name, value.as_str())));
        for (name, value) in all {
            if let (Ok(name), Ok(value)) = (name.parse::<hyper::header::HeaderName>(), value.parse()) {
                headers.insert(name, value);
            }
        }
        self.record(answer.status, finding, progress);
        response
    }

    fn record(self, status: u16, finding: Finding, progress: Arc<Progress>) {
        if !self.shared.recorder.keeps() {
            return;
        }
        let kept = |body: &Bytes| match body.get(..BODY_BYTES_KEPT) {
            // A copy, so that the whole body need not stay.
            Some(start) => Bytes::copy_from_slice(start),
            None => body.clone(),
        };
        let entry = Entry {
            request_id: self.request_id,
            service: finding.operation.map(|operation| operation.service.as_str()),
            operation: finding.operation.map(|operation| operation.name.as_str()),
            model: finding.model,
            http2: self.head.version == Version::HTTP_2,
            method: self.head.method,
            uri: self.head.uri,
            host: self.host,
            headers: self.head.headers,
            body: self.shared.options.record_bodies.then(|| kept(&finding.body)),
            body_len: u64::try_from(finding.body.len()).unwrap_or(u64::MAX),
            body_sha256: finding.body_sha256,
            auth: finding.auth,
            violations: finding.violations,
            fault: finding.effect.fault.as_ref().map(Fault::kind),
            status,
            progress,
        };
        self.shared.recorder.push(self.number, entry);
    }
}

/// The first value of a header, as text.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn check_scope(service: &str, operation: Option<&Operation>, host: &str) -> Result<(), Refused> {
    let Some(operation) = operation else { return Ok(()) };
    // Which name AWS wants for the mantle surface is not established; Anthropic's SDK signs `bedrock-mantle`.
    let compatible = operation.name.starts_with("OpenAi") || operation.name.starts_with("Anthropic");
    let mantle = service == "bedrock-mantle" && (compatible || host.starts_with("bedrock-mantle."));
    if service == operation.signing_name || mantle {
        return Ok(());
    }
    let message = format!("Credential should be scoped to correct service: '{}'.", operation.signing_name);
    Err(Refused { error_type: "InvalidSignatureException", message })
}

fn check_declared_hash(headers: &HeaderMap, payload_hash: &str) -> Result<(), Refused> {
    if header(headers, "x-amz-content-sha256").is_none_or(|declared| declared == payload_hash) {
        return Ok(());
    }
    let message = "The provided 'x-amz-content-sha256' header does not match what was computed.".to_owned();
    Err(Refused { error_type: "InvalidSignatureException", message })
}

/// `us-west-2` of `bedrock-runtime.us-west-2.amazonaws.com`.
fn host_region(host: &str) -> Option<&str> {
    let mut labels = host.split('.');
    let first = labels.next()?;
    if first.starts_with("bedrock") { labels.next() } else { None }
}

/// The region inside a short-term Bedrock API key.
fn short_term_key_region(token: &str) -> Option<String> {
    let decoded = BASE64_STANDARD.decode(token.strip_prefix("bedrock-api-key-")?).ok()?;
    let url = String::from_utf8(decoded).ok()?;
    let credential = url.split('&').find_map(|pair| pair.strip_prefix("X-Amz-Credential="))?;
    let credential = crate::text::percent_decoded(credential);
    credential.split('/').nth(2).map(str::to_owned)
}
