//! A request's body for everybody who asks what stands in it. It is read once, when somebody asks for the first time, and
//! the answers to all are kept from that.

use std::sync::OnceLock;

use super::body::Seen;
use crate::json::{Member, Outline};

/// Who sends it, and what a conversation begins with: what others than the bound ask for.
const NAMED: [&str; 8] =
    ["metadata", "requestMetadata", "user", "safety_identifier", "system", "tools", "toolConfig", "messages"];

/// A body, and what was read of it so far.
#[derive(Debug)]
pub struct Content<'b> {
    body: &'b [u8],
    reading: OnceLock<Option<Reading<'b>>>,
    outline: OnceLock<Option<Outline<'b>>>,
}

#[derive(Debug)]
struct Reading<'b> {
    seen: Seen,
    outline: Outline<'b>,
}

impl<'b> Content<'b> {
    #[must_use]
    pub const fn new(body: &'b [u8]) -> Self {
        Self { body, reading: OnceLock::new(), outline: OnceLock::new() }
    }

    #[must_use]
    pub const fn bytes(&self) -> &'b [u8] {
        self.body
    }

    /// The member of that name of the body's object. It is missing where the body is no JSON object.
    #[must_use]
    pub fn member(&self, name: &str) -> Member<'b> {
        // Text that is no Unicode, or nested too deeply for a bound, does not hide for whom a request is.
        let less_strict = || self.outline.get_or_init(|| Outline::read(self.body, &NAMED)).as_ref();
        let outline = self.reading().map(|reading| &reading.outline).or_else(less_strict);
        outline.map_or(Member::Missing, |outline| outline.member(name))
    }

    /// What the bound depends on; `None` where the body is no JSON object, or nested too deeply.
    pub(super) fn seen(&self) -> Option<&Seen> {
        self.reading().map(|reading| &reading.seen)
    }

    fn reading(&self) -> Option<&Reading<'b>> {
        let read = || {
            let mut outline = Outline::new(self.body, &NAMED);
            Seen::read(self.body, &mut outline).map(|seen| Reading { seen, outline })
        };
        self.reading.get_or_init(read).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_known_with_the_bound_and_where_there_is_none() {
        let deep = ["[".repeat(200), "]".repeat(200)].concat();
        for rest in ["1", r#""\ud83d""#, &deep] {
            let body = format!(r#"{{"x":{rest},"metadata":{{"user_id":"u"}},"user":1,"user":2}}"#);
            let content = Content::new(body.as_bytes());
            assert_eq!(content.seen().is_some(), rest == "1", "{rest}");
            assert!(matches!(content.member("metadata"), Member::Once { value: br#"{"user_id":"u"}"#, .. }), "{rest}");
            assert_eq!((content.member("user"), content.member("system")), (Member::Twice, Member::Missing));
        }
        assert_eq!(Content::new(br#"{"metadata":1"#).member("metadata"), Member::Missing);
    }
}
