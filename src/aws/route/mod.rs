//! Which operation of which Bedrock service a request is: by `X-Amz-Target`, else by method and raw path, and where
//! services share a path by the ARN in the path or in the body.
//!
//! Segments are compared as they came: nothing is decoded, re-encoded or normalised before it is matched, because an
//! ARN in a path carries encoded slashes and because the path that is authorised has to be the path that is signed and
//! sent. An operation that is not in the table is refused, never forwarded. Rests on the service models of botocore
//! 1.44.5 (523 operations, 17 pairs of which overlap); policy, models and regions are decided elsewhere.

mod path;
mod table;
mod tie;
mod trie;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::aws::operation::{Operation, Service};

pub use path::decode_segment;
pub use tie::BodyTie;

use table::TABLE;

/// What every operation with the model in its path begins with.
const MODEL_PREFIX: &str = "/model/";

/// What of a request decides its route.
#[derive(Debug, Clone, Copy)]
pub struct RequestTarget<'a> {
    pub method: &'a str,
    /// Raw, as on the request line, without the query; the prefix `/bedrock` may stand before it.
    pub path: &'a str,
    /// The header `X-Amz-Target`.
    pub amz_target: Option<&'a str>,
}

/// The answer of [`find`].
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    Route(Route<'a>),
    /// The body decides; read it and call [`BodyTie::decide`].
    NeedsBody(BodyTie<'a>),
}

/// One operation, and the path it was called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    pub operation: &'static Operation,
    /// The native raw path: without the prefix, and `/` where nothing is left.
    pub path: &'a str,
    pub model: ModelIn<'a>,
}

/// Where the request names its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelIn<'a> {
    None,
    /// Between `/model/` and the action; undecoded, and possibly with raw slashes.
    Path {
        raw: &'a str,
    },
    /// In this member of the JSON body.
    Body {
        member: &'static str,
    },
}

/// Why a request has no route. `Display` is fit for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteError {
    /// No operation has this path, or this `X-Amz-Target`.
    UnknownOperation,
    /// The path is an operation's, but by these methods. AWS answers it as an unknown operation, too.
    MethodNotAllowed { allowed: Vec<&'static str> },
    /// The path could be read in two ways.
    BadPath(&'static str),
    /// Several services have this path and the ARN does not say which is meant.
    Ambiguous(&'static str),
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownOperation => f.write_str(
                "no operation of Amazon Bedrock has this method and path; a '/' inside a path parameter is written \
                 %2F, and a trailing slash counts",
            ),
            Self::MethodNotAllowed { allowed } => write!(f, "this path is called by {}", allowed.join(" or ")),
            Self::BadPath(reason) => write!(f, "the request path {reason}"),
            Self::Ambiguous(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for RouteError {}

/// An operation as the indexes hold it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    operation: &'static Operation,
    body_model_member: Option<&'static str>,
}

impl Entry {
    fn route<'a>(&self, path: &'a str) -> Route<'a> {
        let model = self.body_model_member.map_or(ModelIn::None, |member| ModelIn::Body { member });
        Route { operation: self.operation, path, model }
    }
}

/// Finds the operation of a request. Does not allocate when it finds one.
///
/// # Errors
/// See [`RouteError`]; nothing of an unroutable request may go upstream.
pub fn find<'a>(request: &RequestTarget<'a>) -> Result<Found<'a>, RouteError> {
    let checked = path::check(request.path)?;
    let path = path::native(request.path);
    if path == "/" {
        return by_target(request, path);
    }
    if let Some(named) = path.strip_prefix(MODEL_PREFIX) {
        return by_model_action(request.method, path, named);
    }
    if checked.encodes_plain_text {
        return Err(RouteError::BadPath(
            "percent-encodes a letter, a digit, '-', '.' or '_', which must stand as it is",
        ));
    }
    let rest = path.strip_prefix('/').unwrap_or(path);
    let Some(leaf) = TABLE.templates.find(rest, &mut |leaf| leaf.method == request.method) else {
        return Err(unrouted(rest));
    };
    match leaf.entries.as_slice() {
        [entry] => Ok(Found::Route(entry.route(path))),
        candidates if leaf.has_label() => tie::by_path(path, candidates).map(Found::Route),
        candidates => Ok(Found::NeedsBody(BodyTie { path, candidates })),
    }
}

/// The JSON protocol: every operation is `POST /` and the header names it.
fn by_target<'a>(request: &RequestTarget<'a>, path: &'a str) -> Result<Found<'a>, RouteError> {
    if request.method != "POST" {
        return Err(RouteError::UnknownOperation);
    }
    let target = request.amz_target.ok_or(RouteError::UnknownOperation)?;
    let known = TABLE.targets.iter().find(|(known, _)| *known == target);
    known.map(|(_, entry)| Found::Route(entry.route(path))).ok_or(RouteError::UnknownOperation)
}

/// `/model/{name}/{action}`: the action is the last segment, because a client's model name may hold slashes
/// (`aws/anthropic/claude`). AWS never sees such a name: [`upstream_path`] writes the model id in its place.
fn by_model_action<'a>(method: &str, path: &'a str, named: &'a str) -> Result<Found<'a>, RouteError> {
    let (raw, action) = named.rsplit_once('/').ok_or(RouteError::UnknownOperation)?;
    let known = TABLE.model_actions.iter().find(|(known, _)| *known == action);
    let (_, entry) = known.ok_or(RouteError::UnknownOperation)?;
    if entry.operation.method != method {
        return Err(RouteError::MethodNotAllowed { allowed: vec![entry.operation.method] });
    }
    Ok(Found::Route(Route { operation: entry.operation, path, model: ModelIn::Path { raw } }))
}

/// Says by which methods a path without a route could have been called.
fn unrouted(rest: &str) -> RouteError {
    let mut allowed = Vec::new();
    // Accepts nothing, so that every leaf of the path is seen.
    let _: Option<&trie::Leaf> = TABLE.templates.find(rest, &mut |leaf| {
        allowed.push(leaf.method);
        false
    });
    allowed.sort_unstable();
    allowed.dedup();
    if allowed.is_empty() { RouteError::UnknownOperation } else { RouteError::MethodNotAllowed { allowed } }
}

/// The path to sign and send: with the model in the path, the operation's template with `model_id` (decoded) escaped as
/// AWS's SDKs do; otherwise the raw path as it came.
#[must_use]
pub fn upstream_path(route: &Route<'_>, model_id: &str) -> String {
    let ModelIn::Path { .. } = route.model else {
        return route.path.to_owned();
    };
    let action = route.operation.template.rsplit('/').next().unwrap_or_default();
    // An ARN grows by two bytes for each of its dozen colons and slashes.
    let mut path = String::with_capacity(MODEL_PREFIX.len() + model_id.len() + 32 + action.len());
    path.push_str(MODEL_PREFIX);
    path::push_encoded(&mut path, model_id);
    path.push('/');
    path.push_str(action);
    path
}

/// Every operation: AWS's own, then the HTTP-only surfaces of bedrock-runtime.
#[must_use]
pub fn operations() -> &'static [Operation] {
    TABLE.operations
}

/// The operations of AWS's service models.
#[must_use]
pub fn native_operations() -> &'static [Operation] {
    TABLE.operations.split_at_checked(TABLE.native_count).map_or(TABLE.operations, |(native, _)| native)
}

/// The surfaces of bedrock-runtime that no service model describes: OpenAI's and Anthropic's request forms.
#[must_use]
pub fn http_only_operations() -> &'static [Operation] {
    TABLE.operations.split_at_checked(TABLE.native_count).map_or(&[], |(_, http_only)| http_only)
}

/// The operation of this name, as in `(Service::BedrockRuntime, "Converse")`.
#[must_use]
pub fn operation(service: Service, name: &str) -> Option<&'static Operation> {
    TABLE.operations.iter().find(|operation| operation.service == service && operation.name == name)
}
