//! What the quick reading sees of a body is what `serde_json` shows of it, value by value.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::*;

/// The value that `serde_json` is at.
struct Node<'s> {
    seen: &'s mut Seen,
    place: Place,
    root: bool,
}

impl Node<'_> {
    fn scalar(self, scalar: &Scalar<'_>) {
        self.seen.scalar(self.place, scalar);
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.root { deserializer.deserialize_map(self) } else { deserializer.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { seen, place, root } = self;
        let mut inside = place;
        match place {
            Place::Root if root => {}
            Place::Marker => seen.raise(Flag::Cache),
            Place::Block | Place::Tier => {}
            Place::Tool => seen.raise(Flag::Tools),
            Place::Source => seen.block.sources += 1,
            Place::ConverseImage => seen.converse_images += 1,
            Place::Prompt | Place::Opaque => {
                seen.opaque = true;
                inside = Place::Other;
            }
            other => seen.scalar(other, &Scalar::Other),
        }
        let outer = (place == Place::Block).then(|| std::mem::take(&mut seen.block));
        while let Some(name) = map.next_key::<String>()? {
            map.next_value_seed(Node { seen: &mut *seen, place: inside.member(&name), root: false })?;
        }
        if let Some(outer) = outer {
            seen.close_block(outer);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { seen, place, .. } = self;
        seen.scalar(place, &Scalar::Other);
        let mut next = || elements.next_element_seed(Node { seen: &mut *seen, place: place.element(), root: false });
        while next()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let quoted = serde_json::to_string(text).unwrap();
        let Some(Value::Text(text)) = Reader::new(quoted.as_bytes()).value() else { panic!("{quoted}") };
        self.scalar(&Scalar::Text(text));
        Ok(())
    }

    fn visit_u64<E>(self, count: u64) -> Result<(), E> {
        self.scalar(&Scalar::Count(count));
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.scalar(&Scalar::Other);
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        let count = if number > 0.0 { format!("{:.0}", number.ceil()).parse().ok() } else { None };
        self.scalar(&count.map_or(Scalar::Other, Scalar::Count));
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.scalar(&Scalar::Other);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.scalar(&Scalar::Null);
        Ok(())
    }
}

fn shown_by_serde(body: &[u8]) -> Option<Seen> {
    let mut seen = Seen::default();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    Node { seen: &mut seen, place: Place::Root, root: true }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(seen)
}

fn read(body: &[u8]) -> Option<Seen> {
    Seen::read(body, &mut Outline::new(body, &[]))
}

fn compare(body: &[u8]) -> Result<(), TestCaseError> {
    let (read, shown) = (read(body), shown_by_serde(body));
    prop_assert_eq!(format!("{read:?}"), format!("{shown:?}"), "{}", String::from_utf8_lossy(body));
    Ok(())
}

/// Every name that means something, and some that mean nothing.
const NAMES: &str = "messages input system content inferenceConfig textGenerationConfig additionalModelRequestFields \
    toolConfig performanceConfig guardrailConfig maxTokens max_tokens max_completion_tokens max_tokens_to_sample \
    max_gen_len max_output_tokens maxOutputTokens prompt promptVariables previous_response_id image images inputImage \
    mediaSource max_new_tokens maxNewTokens maxTokenCount tools functions response_format mcp_servers anthropic_beta \
    reasoningConfig thinking serviceTier service_tier n best_of cachePoint cache_control numberOfImages samples \
    s3Location output type citations toolResult guardContent source bytes document video data systemTool latency ttl \
    text role name";

const WORDS: &str = "image text base64 tool_use custom computer_20250124 web_search priority flex default optimized \
    standard 5m 1h AAAA auto url";

fn word_of(words: &'static str) -> impl Strategy<Value = String> {
    let words: Vec<&str> = words.split_whitespace().collect();
    prop::sample::select(words).prop_map(str::to_owned)
}

/// A string of a document, now and then with escapes that mean the same.
fn string(words: &'static str) -> impl Strategy<Value = String> {
    let escaped = word_of(words).prop_map(|word| {
        let (first, rest) = word.split_at(1);
        format!("\"\\u{:04x}{rest}\"", first.as_bytes()[0])
    });
    prop_oneof![9 => word_of(words).prop_map(|word| format!("\"{word}\"")), 1 => escaped]
}

/// The text of a document; objects may have a member twice.
fn document() -> impl Strategy<Value = String> {
    let number =
        prop::sample::select(vec!["0", "7", "100", "1e3", "10.5", "-1", "-0", "18446744073709551616", "1e400"]);
    let leaf = prop_oneof![
        number.prop_map(str::to_owned),
        prop::sample::select(vec!["null", "true", "false"]).prop_map(str::to_owned),
        string(WORDS),
        Just(r#""a \"b\"\n\/ é 😀 \ud83d\ude00""#.to_owned()),
    ];
    let value = leaf.prop_recursive(6, 60, 5, |inner| {
        let member = (string(NAMES), inner.clone()).prop_map(|(name, value)| format!("{name}:{value}"));
        prop_oneof![
            3 => vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(","))),
            2 => vec(inner, 0..4).prop_map(|elements| format!("[{}]", elements.join(" , "))),
        ]
    });
    let member = (string(NAMES), value).prop_map(|(name, value)| format!("{name}: {value}"));
    vec(member, 0..8).prop_map(|members| format!("{{{}}}", members.join(",\n")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn it_sees_what_serde_shows(body in document()) {
        compare(body.as_bytes())?;
    }

    #[test]
    fn broken_bodies_have_no_reading_where_serde_has_none(
        body in document(), at in any::<prop::sample::Index>(), removed in 0..4_usize, put in vec(any::<u8>(), 0..2),
    ) {
        let mut bytes = body.into_bytes();
        let at = at.index(bytes.len() + 1);
        let end = bytes.len().min(at + removed);
        bytes.splice(at..end, put);
        compare(&bytes)?;
    }
}

#[test]
fn it_is_as_deep_as_serde_goes() {
    for depth in 120..135 {
        for (open, close) in [("[", "]"), (r#"{"content":"#, "}"), (r#"{"messages":[{"content":["#, "]}]}")] {
            let body = format!(r#"{{"messages":{}1{}}}"#, open.repeat(depth), close.repeat(depth));
            assert_eq!(read(body.as_bytes()).is_some(), shown_by_serde(body.as_bytes()).is_some(), "{depth} {open}");
        }
    }
    assert!(read(format!(r#"{{"a":{}{}}}"#, "[".repeat(126), "]".repeat(126)).as_bytes()).is_some());
}
