//! What a request asks for, owned: the operation, the path and query as they came, and where the model is named.

use std::borrow::Cow;
use std::ops::Range;

use crate::aws::operation::{Operation, Streaming};
use crate::aws::route::{self, ModelIn, Route};
use crate::json::{Member, Outline};

/// One call of one operation.
#[derive(Debug)]
pub(super) struct Call {
    pub operation: &'static Operation,
    /// The native raw path, without the `/bedrock` prefix.
    pub path: String,
    /// The raw query, without the question mark; empty where there is none.
    pub query: String,
    pub model: ModelPlace,
}

/// Where the model is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ModelPlace {
    /// The operation has no model.
    None,
    /// This range of the path.
    Path(Range<usize>),
    /// This member of the JSON body.
    Body(&'static str),
}

impl Call {
    pub(super) fn new(route: &Route<'_>, query: &str) -> Self {
        let model = match route.model {
            ModelIn::None => ModelPlace::None,
            ModelIn::Body { member } => ModelPlace::Body(member),
            ModelIn::Path { raw } => match route.path.find(raw) {
                Some(start) => ModelPlace::Path(start..start + raw.len()),
                None => ModelPlace::None,
            },
        };
        Self { operation: route.operation, path: route.path.to_owned(), query: query.to_owned(), model }
    }

    /// The path to send: with `model_id` in the place of the client's name, or as it came. An id that came with raw
    /// slashes is encoded, because AWS would read them as further segments.
    pub(super) fn upstream_path(&self, model_id: Option<&str>) -> Cow<'_, str> {
        let Some(raw) = self.raw_model() else {
            return Cow::Borrowed(&self.path);
        };
        let decoded = if raw.contains('/') { route::decode_segment(raw) } else { None };
        match model_id.or(decoded.as_deref()) {
            Some(id) => {
                let route = Route { operation: self.operation, path: &self.path, model: ModelIn::Path { raw } };
                Cow::Owned(route::upstream_path(&route, id))
            }
            None => Cow::Borrowed(&self.path),
        }
    }

    /// The model as the path names it, undecoded.
    pub(super) fn raw_model(&self) -> Option<&str> {
        match &self.model {
            ModelPlace::Path(range) => self.path.get(range.clone()),
            ModelPlace::None | ModelPlace::Body(_) => None,
        }
    }

    pub(super) const fn streams(&self) -> bool {
        !matches!(self.operation.streaming, Streaming::None)
    }
}

/// A top-level string member of a JSON body: its value, and where in the body it stands, quotes included.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BodyMember {
    pub value: String,
    pub span: Range<usize>,
}

/// Finds a member of a JSON object. `None` when the body is no object, or has no such string; also where it has one of the
/// members that can name a model twice, because two parsers could read two different models.
pub(super) fn find_member(body: &[u8], member: &str) -> Option<BodyMember> {
    let outline = Outline::read(body, &NAMING_MODELS)?;
    if NAMING_MODELS.iter().any(|name| outline.member(name) == Member::Twice) {
        return None;
    }
    let Member::Once { value, at } = outline.member(member) else { return None };
    Some(BodyMember { value: serde_json::from_slice(value).ok()?, span: at..at.checked_add(value.len())? })
}

/// The members that can name a model.
const NAMING_MODELS: [&str; 2] = ["model", "modelId"];

/// `body` with another string in the place of a member's value; every other byte stays.
pub(super) fn replace_member(body: &[u8], member: &BodyMember, value: &str) -> Option<Vec<u8>> {
    let quoted = serde_json::to_vec(value).ok()?;
    let before = body.get(..member.span.start)?;
    let after = body.get(member.span.end..)?;
    Some([before, &quoted, after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_replaced_and_every_other_byte_stays() {
        let body = br#"{ "messages" : [1e2, "\u00e9"],"model":"my-\u0063laude"  , "x":0.1000}"#;
        let member = find_member(body, "model").unwrap();
        assert_eq!(member.value, "my-claude");
        assert_eq!(
            replace_member(body, &member, "anthropic.claude").unwrap(),
            br#"{ "messages" : [1e2, "\u00e9"],"model":"anthropic.claude"  , "x":0.1000}"#
        );
    }

    #[test]
    fn what_is_no_object_with_such_a_string_has_no_member() {
        for body in ["", "[]", "{", r#"{"model":1}"#, r#"{"model":"a","model":"b"}"#, r#"{"x":{"model":"a"}}"#, "\u{0}"]
        {
            assert_eq!(find_member(body.as_bytes(), "model"), None, "{body}");
        }
    }
}
