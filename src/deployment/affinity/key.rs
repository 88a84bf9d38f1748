//! What makes requests belong together: a header, the session that Claude Code names, or what repeats at the beginning
//! of a conversation with every turn: its tools, its system prompt and its messages up to the first of the user.
//!
//! Pure, stable over processes, and cheap: whoever read the body says where its parts stand, and of the messages only the
//! first ones are looked at. Markers of
//! prompt caching (`cachePoint` of Converse, `cache_control` of Anthropic) move to the end with every turn, so only
//! strings count, and those of the markers do not. A body that is no JSON has no key.

use memchr::{memchr, memchr2, memmem};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::CacheAffinity;

/// Members whose value says nothing about the prompt, or changes as the conversation grows.
const IGNORED: [&[u8]; 4] = [b"cache_control", b"cachePoint", b"type", b"role"];

/// The user's first message is the first or the second; instructions may stand before it.
const MESSAGES_MAX: usize = 4;

const UUID_BYTES: usize = 36;

/// Where a key may come from.
#[derive(Clone, Copy)]
pub struct KeySource<'a> {
    /// The value of the first configured header that is there.
    pub header: Option<&'a [u8]>,
    /// The request's body; empty where it is no model's prompt.
    pub body: &'a [u8],
    /// Finds the parts of the body. It is asked only where they decide.
    pub prompt: &'a dyn Fn() -> Prompt<'a>,
}

/// What a conversation begins with, as it stands in the body.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<'a> {
    pub system: Option<&'a [u8]>,
    pub tools: Option<&'a [u8]>,
    pub messages: Option<&'a [u8]>,
}

impl KeySource<'_> {
    /// The key of the request, if it is to have one.
    #[must_use]
    pub fn key(&self, mode: CacheAffinity) -> Option<u64> {
        if mode == CacheAffinity::Off {
            return None;
        }
        self.header.filter(|value| !value.is_empty()).map(header_key).or_else(|| self.body_key(mode))
    }

    /// The key that the body gives.
    fn body_key(&self, mode: CacheAffinity) -> Option<u64> {
        if self.body.is_empty() {
            return None;
        }
        if let Some(session) = session(self.body) {
            return Some(header_key(session));
        }
        let has = |marker: &[u8]| memmem::find(self.body, marker).is_some();
        let caches = || has(b"\"cachePoint\"") || has(b"\"cache_control\"");
        if mode == CacheAffinity::Always || caches() { beginning(&(self.prompt)()) } else { None }
    }
}

/// The key of whoever sends this value.
#[must_use]
pub fn header_key(value: &[u8]) -> u64 {
    xxh3_64(value)
}

/// The stable hash of a deployment's id.
#[must_use]
pub fn id_hash(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// The session in Anthropic's `metadata.user_id`: Claude Code writes `user_…_account_…_session_<uuid>` there, or a JSON
/// object with a member `session_id`.
fn session(body: &[u8]) -> Option<&[u8]> {
    let found = memmem::find(body, b"\"user_id\"")?;
    let colon = skip_space(body, found + b"\"user_id\"".len());
    let start = skip_space(body, colon.checked_add(1)?);
    if body.get(colon) != Some(&b':') || body.get(start) != Some(&b'"') {
        return None;
    }
    let value = body.get(start..string_end(body, start)?)?;
    let named = memmem::find(value, b"session_")? + b"session_".len();
    let rest = value.get(named..)?;
    rest.windows(UUID_BYTES).find(|text| is_uuid(text))
}

fn is_uuid(text: &[u8]) -> bool {
    text.iter().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

/// The hash of what every turn of a conversation begins with.
fn beginning(prompt: &Prompt<'_>) -> Option<u64> {
    let messages = first_messages(prompt.messages?)?;
    let [system, tools] = [prompt.system, prompt.tools].map(|part| part.map_or(0, strings_hash));
    Some(xxh3_64([system, tools, messages].map(u64::to_le_bytes).as_flattened()))
}

/// The hash of a list of messages up to the first of the user.
fn first_messages(list: &[u8]) -> Option<u64> {
    let mut hasher = Xxh3::new();
    let mut at = skip_space(list, 0);
    if list.get(at) != Some(&b'[') {
        return None;
    }
    for number in 0..MESSAGES_MAX {
        let start = skip_space(list, at.checked_add(1)?);
        if number > 0 && list.get(at) != Some(&b',') {
            break;
        }
        let end = skip_value(list, start)?;
        let message = list.get(start..end)?;
        hash_strings(message, &mut hasher);
        let mut of_user = false;
        each_member(message, |name, value| of_user |= name == b"role" && value == b"\"user\"")?;
        if of_user {
            break;
        }
        at = skip_space(list, end);
    }
    Some(hasher.digest())
}

fn strings_hash(value: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hash_strings(value, &mut hasher);
    hasher.digest()
}

/// Hashes the strings of a value in their order, without the names of members and what is ignored.
fn hash_strings(value: &[u8], hasher: &mut Xxh3) {
    let mut at = 0;
    while let Some(found) = value.get(at..).and_then(|rest| memchr(b'"', rest)) {
        let start = at + found;
        let Some(end) = string_end(value, start) else {
            return;
        };
        let text = value.get(start + 1..end - 1).unwrap_or_default();
        let after = skip_space(value, end);
        at = end;
        if value.get(after) != Some(&b':') {
            hasher.update(text);
            // No byte of UTF-8, so that two strings differ from one.
            hasher.update(&[0xff]);
        } else if IGNORED.contains(&text) {
            match skip_value(value, skip_space(value, after + 1)) {
                Some(end) => at = end,
                None => return,
            }
        }
    }
}

/// Calls `see` with the name and the value of each member of an object. `None` when it is none.
fn each_member<'b>(object: &'b [u8], mut see: impl FnMut(&'b [u8], &'b [u8])) -> Option<()> {
    let mut at = skip_space(object, 0);
    if object.get(at) != Some(&b'{') {
        return None;
    }
    loop {
        let start = skip_space(object, at.checked_add(1)?);
        if object.get(start) == Some(&b'}') {
            return Some(());
        }
        if object.get(start) != Some(&b'"') {
            return None;
        }
        let name_end = string_end(object, start)?;
        let colon = skip_space(object, name_end);
        if object.get(colon) != Some(&b':') {
            return None;
        }
        let value = skip_space(object, colon + 1);
        let value_end = skip_value(object, value)?;
        see(object.get(start + 1..name_end - 1)?, object.get(value..value_end)?);
        at = skip_space(object, value_end);
        match object.get(at) {
            Some(b',') => {}
            Some(b'}') => return Some(()),
            _ => return None,
        }
    }
}

/// Where a value that begins at `start` ends.
fn skip_value(text: &[u8], start: usize) -> Option<usize> {
    match text.get(start)? {
        b'"' => string_end(text, start),
        b'{' | b'[' => {
            let (mut at, mut depth) = (start, 0_usize);
            loop {
                let marks = |byte: &u8| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']');
                at += text.get(at..)?.iter().position(marks)?;
                match text.get(at)? {
                    b'"' => {
                        at = string_end(text, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    _ => depth -= 1,
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let rest = text.get(start..)?;
            let length = rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace());
            Some(start + length.filter(|length| *length > 0)?)
        }
    }
}

/// Behind the closing quote of the string that begins with the quote at `start`.
fn string_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start.checked_add(1)?;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        at += 2;
    }
}

fn skip_space(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + rest.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::json::Outline;

    fn body_key(body: &[u8], mode: CacheAffinity) -> Option<u64> {
        key_with(None, body, mode)
    }

    fn key_with(header: Option<&[u8]>, body: &[u8], mode: CacheAffinity) -> Option<u64> {
        let outline = Outline::read(body, &["system", "tools", "toolConfig", "messages"]);
        let part = |name| outline.as_ref().and_then(|outline| outline.member(name).value());
        let prompt = || Prompt {
            system: part("system"),
            tools: part("tools").or_else(|| part("toolConfig")),
            messages: part("messages"),
        };
        KeySource { header, body, prompt: &prompt }.key(mode)
    }

    fn key(body: &Value) -> Option<u64> {
        body_key(body.to_string().as_bytes(), CacheAffinity::Auto)
    }

    fn converse(turns: usize) -> Value {
        let mut messages: Vec<Value> = (0..turns)
            .flat_map(|turn| {
                [
                    json!({ "role": "user", "content": [{ "text": format!("question {turn}") }] }),
                    json!({ "role": "assistant", "content": [{ "text": format!("answer {turn}") }] }),
                ]
            })
            .collect();
        messages.pop();
        let last = messages.last_mut().unwrap()["content"].as_array_mut().unwrap();
        last.push(json!({ "cachePoint": { "type": "default" } }));
        json!({
            "system": [{ "text": "Be brief." }, { "cachePoint": { "type": "default" } }],
            "toolConfig": { "tools": [{ "toolSpec": { "name": "clock", "inputSchema": { "json": {} } } }] },
            "messages": messages,
            "inferenceConfig": { "maxTokens": turns },
        })
    }

    fn anthropic(turns: usize) -> Value {
        let mut messages: Vec<Value> = (0..turns)
            .flat_map(|turn| {
                [
                    json!({ "role": "user", "content": [{ "type": "text", "text": format!("question \"{turn}\"\n") }] }),
                    json!({ "role": "assistant", "content": [{ "type": "text", "text": format!("answer {turn}") }] }),
                ]
            })
            .collect();
        messages.pop();
        messages.last_mut().unwrap()["content"][0]["cache_control"] = json!({ "type": "ephemeral", "ttl": "1h" });
        json!({ "anthropic_version": "bedrock-2023-05-31", "max_tokens": 100 + turns, "messages": messages, "system": "s" })
    }

    #[test]
    fn every_turn_of_a_conversation_has_the_same_key() {
        for make in [converse, anthropic] {
            let first = key(&make(1));
            assert!(first.is_some());
            for turns in 2..6 {
                assert_eq!(key(&make(turns)), first, "{turns} turns");
            }
        }
    }

    #[test]
    fn another_beginning_is_another_conversation() {
        let mut keys = vec![key(&converse(1)).unwrap(), key(&anthropic(1)).unwrap()];
        for change in [
            |body: &mut Value| body["system"][0]["text"] = json!("Be long."),
            |body: &mut Value| body["toolConfig"]["tools"][0]["toolSpec"]["name"] = json!("calendar"),
            |body: &mut Value| body["messages"][0]["content"][0]["text"] = json!("another question"),
            |body: &mut Value| body["messages"][0]["content"] = json!([{ "text": "question" }, { "text": " 0" }]),
        ] {
            let mut body = converse(1);
            body["messages"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "role": "assistant", "content": [{ "cachePoint": {} }] }));
            change(&mut body);
            keys.push(key(&body).unwrap());
        }
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn only_requests_that_cache_have_a_key_by_themselves() {
        let plain = json!({ "messages": [{ "role": "user", "content": [{ "text": "hello" }] }] }).to_string();
        assert_eq!(body_key(plain.as_bytes(), CacheAffinity::Auto), None);
        assert!(body_key(plain.as_bytes(), CacheAffinity::Always).is_some());
        let caching = converse(1).to_string();
        assert_eq!(body_key(caching.as_bytes(), CacheAffinity::Off), None);
    }

    #[test]
    fn instructions_before_the_users_first_message_belong_to_the_beginning() {
        let chat = |instructions: &str, question: &str, more: &[Value]| {
            let mut messages = vec![
                json!({ "role": "system", "content": instructions }),
                json!({ "role": "user", "content": question }),
            ];
            messages.extend_from_slice(more);
            body_key(json!({ "messages": messages }).to_string().as_bytes(), CacheAffinity::Always).unwrap()
        };
        let more = [json!({ "role": "assistant", "content": "yes" }), json!({ "role": "user", "content": "why" })];
        assert_eq!(chat("a", "b", &[]), chat("a", "b", &more));
        assert_ne!(chat("a", "b", &[]), chat("a", "c", &[]));
        assert_ne!(chat("a", "b", &[]), chat("d", "b", &[]));
    }

    #[test]
    fn claude_codes_session_is_found_in_both_of_its_forms() {
        const SESSION: &str = "0b7f9c1e-3f5a-4c62-9a3e-5d2f8e6b7a90";
        let old = format!("user_5f1d_account_7c1b9d52-0d3a-4d0e-8a62-2a1e4b9f3c11_session_{SESSION}");
        let new = json!({ "device_id": "5f1d", "account_uuid": "", "session_id": SESSION }).to_string();
        for user in [old, new] {
            let body = json!({ "messages": [], "metadata": { "user_id": user } });
            assert_eq!(key(&body), Some(header_key(SESSION.as_bytes())), "{body}");
        }
        for user in ["somebody", "session_", "session_0b7f9c1e-3f5a-4c62-9a3e-5d2f8e6b7a9", ""] {
            assert_eq!(key(&json!({ "metadata": { "user_id": user } })), None, "{user}");
        }
    }

    #[test]
    fn a_header_comes_before_the_body() {
        let body = converse(1).to_string();
        let key_of = |header: &'static [u8], mode| key_with(Some(header), body.as_bytes(), mode);
        assert_eq!(key_of(b"mine", CacheAffinity::Auto), Some(header_key(b"mine")));
        assert_eq!(key_of(b"mine", CacheAffinity::Off), None);
        assert_eq!(key_of(b"", CacheAffinity::Auto), key(&converse(1)));
    }

    #[test]
    fn what_is_no_conversation_has_no_key() {
        for body in [
            "",
            "[]",
            "{",
            "{}",
            "nonsense",
            "{\"messages\":{}}",
            "{\"messages\":[",
            "{\"messages\":[]",
            "{\"messages\":[]}",
            "{\"messages\" 1}",
            "{\"a\":\"b\\",
            "{\"a\":]}",
            "{\"system\":\"only\"}",
            "{\"messages\":[{\"role\"]}",
        ] {
            assert_eq!(body_key(body.as_bytes(), CacheAffinity::Always), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(b"{}[]\",:\\ \n".to_vec())], 0..200),
            tail in proptest::sample::select(vec!["{\"messages\":[", "\"user_id\":\"session_", "\"cachePoint\""]),
        ) {
            for body in [bytes.clone(), [tail.as_bytes(), &bytes].concat(), [&bytes, tail.as_bytes()].concat()] {
                let _key = body_key(&body, CacheAffinity::Always);
                let _key = body_key(&body, CacheAffinity::Auto);
            }
        }
    }
}
