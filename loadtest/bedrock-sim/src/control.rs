//! The endpoints by which tests steer and question the simulator. They need no signature, live under `/_sim/` (and
//! `/billed`), are not recorded and are never billed.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::service::{Body, Shared};

const BODY_BYTES_MAX: usize = 1024 * 1024;

pub fn is_control(path: &str) -> bool {
    path.starts_with("/_sim/") || path == "/billed"
}

pub async fn serve(shared: &Shared, head: &Parts, body: Incoming) -> Response<Body> {
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return respond(StatusCode::BAD_REQUEST, &json!({ "error": "the body cannot be read" }));
    };
    let window = Window::of(head.uri.query().unwrap_or_default());
    match answer(shared, head.method.as_str(), head.uri.path(), &window, &body.to_bytes()) {
        Ok(value) => respond(StatusCode::OK, &value),
        Err((status, message)) => respond(status, &json!({ "error": message })),
    }
}

/// Which part of a list is asked for: `last=N`, or `from=N&limit=M`.
struct Window {
    last: usize,
    from: Option<u64>,
    limit: usize,
}

impl Window {
    fn of(query: &str) -> Self {
        let value = |name: &str| query.split('&').find_map(|pair| pair.split_once('=').filter(|(own, _)| *own == name));
        let number = |name: &str| value(name).and_then(|(_, text)| text.parse::<u64>().ok());
        let size = |name: &str| number(name).and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
        Self { last: size("last"), from: number("from"), limit: size("limit") }
    }
}

fn counters(shared: &Shared) -> Value {
    let mut counters = json!(shared.recorder.counts.read());
    counters["max_concurrent"] = json!(shared.recorder.concurrency.max());
    counters
}

fn answer(
    shared: &Shared,
    method: &str,
    path: &str,
    window: &Window,
    body: &[u8],
) -> Result<Value, (StatusCode, String)> {
    let malformed = |error: serde_json::Error| (StatusCode::BAD_REQUEST, error.to_string());
    match (method, path) {
        ("GET", "/_sim/health") => Ok(json!({ "ok": true, "operations": crate::operations::modelled_count() })),
        ("GET", "/_sim/counters") => Ok(counters(shared)),
        ("GET", "/_sim/requests") => Ok(json!(shared.recorder.last(window.last))),
        ("DELETE", "/_sim/requests") => {
            shared.recorder.clear();
            Ok(json!({}))
        }
        ("GET", "/_sim/behaviour") => Ok(json!(shared.rules.get())),
        ("PUT", "/_sim/behaviour") => {
            shared.rules.set(serde_json::from_slice(body).map_err(malformed)?);
            Ok(json!(shared.rules.get()))
        }
        ("POST", "/_sim/behaviour") => {
            shared.rules.add(serde_json::from_slice(body).map_err(malformed)?);
            Ok(json!(shared.rules.get()))
        }
        ("DELETE", "/_sim/behaviour") => {
            shared.rules.set(crate::behaviour::Behaviour::default());
            Ok(json!({}))
        }
        ("GET", "/billed" | "/_sim/billed") => Ok(json!(shared.ledger.billed())),
        ("DELETE", "/billed" | "/_sim/billed") => {
            shared.ledger.clear();
            Ok(json!({}))
        }
        ("GET", "/_sim/billed/rows") => Ok(match window.from {
            Some(from) => json!(shared.ledger.rows_from(from, window.limit)),
            None => json!(shared.ledger.rows(window.last)),
        }),
        _ => Err((StatusCode::NOT_FOUND, format!("no control endpoint {method} {path}"))),
    }
}

fn respond(status: StatusCode, value: &Value) -> Response<Body> {
    let bytes = Bytes::from(value.to_string());
    let mut response = Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}
