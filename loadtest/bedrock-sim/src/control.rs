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
    let last = head.uri.query().and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("last=")));
    let last = last.and_then(|count| count.parse().ok()).unwrap_or(usize::MAX);
    match answer(shared, head.method.as_str(), head.uri.path(), last, &body.to_bytes()) {
        Ok(value) => respond(StatusCode::OK, &value),
        Err((status, message)) => respond(status, &json!({ "error": message })),
    }
}

fn answer(shared: &Shared, method: &str, path: &str, last: usize, body: &[u8]) -> Result<Value, (StatusCode, String)> {
    let malformed = |error: serde_json::Error| (StatusCode::BAD_REQUEST, error.to_string());
    match (method, path) {
        ("GET", "/_sim/health") => Ok(json!({ "ok": true, "operations": crate::operations::modelled_count() })),
        ("GET", "/_sim/counters") => Ok(json!(shared.recorder.counts.read())),
        ("GET", "/_sim/requests") => Ok(json!(shared.recorder.last(last))),
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
        ("GET", "/_sim/billed/rows") => Ok(json!(shared.ledger.rows(last))),
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
