//! JSON in and out in which an amount of money is never a float: numbers are taken as they are written, and written as
//! they are.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::problem::Problem;
use crate::admin::request::Answer;
use crate::types::money::NanoUsd;

/// More than any endpoint knows.
const MEMBERS_MAX: usize = 200;

/// The members of a request's body, each as it was written.
#[derive(Debug, Default)]
pub(super) struct Members(pub Vec<(String, Box<RawValue>)>);

impl Members {
    /// Reads a JSON object; an empty body is an empty object.
    pub(super) fn read(body: &[u8]) -> Result<Self, Problem> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        serde_json::from_slice(body).map_err(|error| {
            Problem::Invalid(format!("The body must be one JSON object, such as {{\"max_budget\": 10}}: {error}."))
        })
    }

    /// Takes a member out.
    pub(super) fn take(&mut self, name: &str) -> Option<Box<RawValue>> {
        let index = self.0.iter().position(|(own, _)| own == name)?;
        Some(self.0.remove(index).1)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if members.iter().any(|(other, _)| *other == name) {
                        let shown: String = name.chars().take(64).collect();
                        return Err(A::Error::custom(format_args!("`{shown}` stands there twice")));
                    }
                    if members.len() == MEMBERS_MAX {
                        return Err(A::Error::custom("there are too many members"));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// An object to be written, in the order in which it was filled.
#[derive(Debug, Default)]
pub(super) struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    /// Adds a member. What cannot be written becomes `null`; of our own types everything can.
    pub(super) fn put(&mut self, name: impl Into<String>, value: &(impl Serialize + ?Sized)) -> &mut Self {
        let raw = serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned());
        self.0.push((name.into(), raw));
        self
    }

    /// Adds the members of another one.
    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// A complete answer with this as its body.
    pub(super) fn into_answer(self) -> Answer {
        answer(&self)
    }
}

/// A complete answer with this as its body.
pub(super) fn answer(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => Answer::of(200, "application/json", body),
        Err(error) => Problem::Internal(format!("an answer cannot be written: {error}")).answer(),
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Dollars as an exact JSON number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usd(pub NanoUsd);

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.0.to_usd_number()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// Unix milliseconds as RFC 3339 in UTC: `2026-11-22T23:49:16.5Z`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(pub u64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let timestamp = i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        match timestamp {
            Some(timestamp) => serializer.collect_str(&timestamp),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_exactly() {
        let mut object = Object::default();
        for (name, nano) in
            [("a", 300_000_000), ("b", 1), ("c", 9_007_199_254_740_991), ("d", 0), ("e", 40_000_000_000)]
        {
            object.put(name, &Usd(NanoUsd(nano)));
        }
        let text = serde_json::to_string(&object).unwrap();
        assert_eq!(text, r#"{"a":0.3,"b":0.000000001,"c":9007199.254740991,"d":0,"e":40}"#);
    }

    #[test]
    fn a_body_is_one_object_without_repetitions() {
        assert_eq!(Members::read(b"").unwrap().0.len(), 0);
        assert_eq!(Members::read(b" {\"a\": 0.10, \"b\":[ ] } ").unwrap().0[0].1.get(), "0.10");
        for body in ["[]", "1", "{", "{\"a\":1,\"a\":1}", "{\"a\":1,\"\\u0061\":2}", "{} {}", "\u{feff}{}"] {
            let problem = Members::read(body.as_bytes()).unwrap_err();
            assert!(matches!(problem, Problem::Invalid(_)), "{body}: {problem:?}");
        }
        assert!(Members::read(&[0xff]).is_err());
        let many = (0..300).map(|number| format!("\"{number}\":0")).collect::<Vec<_>>().join(",");
        assert!(Members::read(format!("{{{many}}}").as_bytes()).is_err());
    }

    #[test]
    fn a_time_is_written_in_utc() {
        assert_eq!(serde_json::to_string(&Time(1_795_391_356_500)).unwrap(), "\"2026-11-22T23:49:16.5Z\"");
        assert_eq!(serde_json::to_string(&Time(u64::MAX)).unwrap(), "null");
    }
}
