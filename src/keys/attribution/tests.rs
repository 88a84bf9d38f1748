use std::sync::Arc;

use super::*;
use crate::keys::record::Record;
use crate::keys::register::Profile;

const NAMES: [&str; 2] = ["x-dheera-ai-end-user-id", "x-litellm-end-user-id"];

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn user(headers: &[(&str, &str)], metering: Metering, body: &str) -> Option<String> {
    let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes());
    end_user(&names(&NAMES), &header, metering, &Content::new(body.as_bytes()))
}

fn tagged(headers: &[(&str, &str)], caller: &Caller) -> Vec<String> {
    let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes());
    tags(&names(&["x-dheera-ai-tags", "x-litellm-tags"]), &header, caller)
}

#[test]
fn the_end_user_is_found_wherever_a_client_may_say_it() {
    let claude_code = "user_abc_account_1-2_session_3-4";
    let messages = Metering::AnthropicMessages;
    for (headers, metering, body, expected) in [
        (&[("x-litellm-end-user-id", "b"), ("x-dheera-ai-end-user-id", "a")][..], Metering::Converse, "", Some("a")),
        (&[("x-litellm-end-user-id", " b ")], Metering::Free, "", Some("b")),
        (&[("x-amzn-bedrock-request-metadata", r#"{"user_id":"c","x":"y"}"#)], Metering::InvokeModel, "", Some("c")),
        (&[("x-amzn-bedrock-request-metadata", "nonsense")], Metering::InvokeModel, "", None),
        (&[], Metering::Converse, r#"{"requestMetadata":{"end_user":"d"},"messages":[]}"#, Some("d")),
        (&[], Metering::ConverseStream, r#"{"requestMetadata":{"user":"e","team":"x"}}"#, Some("e")),
        (&[], Metering::Converse, r#"{"requestMetadata":{"user":"","user_id":"f"}}"#, Some("f")),
        (&[], Metering::Converse, r#"{"requestMetadata":{"end_user":5}}"#, None),
        (&[], Metering::Converse, r#"{"metadata":{"user_id":"x"}}"#, None),
        (&[], Metering::InvokeModel, r#"{"anthropic_version":"v","metadata":{"user_id":"g"}}"#, Some("g")),
        (&[], messages, r#"{"metadata":{"user_id":"h\u0007i"}}"#, Some("hi")),
        (&[], messages, r#"{"metadata":{"user_id":null}}"#, None),
        (&[], Metering::OpenAiChat, r#"{"user":"j","messages":[{"role":"user"}]}"#, Some("j")),
        (&[], Metering::OpenAiResponses, r#"{"safety_identifier":"k"}"#, Some("k")),
        (&[], Metering::OpenAiResponses, r#"{"user":null,"safety_identifier":"k"}"#, Some("k")),
        (&[], Metering::OpenAiResponses, r#"{"user":"j","safety_identifier":"k"}"#, Some("j")),
        (&[], Metering::OpenAiResponses, r#"{"user":5,"safety_identifier":"k"}"#, None),
        (&[], Metering::OpenAiChat, r#"{"user":"j","user":"k"}"#, None),
        (&[], Metering::Converse, r#"{"requestMetadata":{"user":"e"},"requestMetadata":{"user":"f"}}"#, None),
        (&[], Metering::InvokeModel, r#"{"messages":[{"role":"user"}],"user":"l"}"#, Some("l")),
        (&[], Metering::InvokeModel, r#"{"anthropic_version":"v","messages":[{"role":"user"}]}"#, None),
        (&[], Metering::OpenAiChat, "{\"user\":", None),
        (&[], Metering::Free, r#"{"user":"m"}"#, None),
    ] {
        assert_eq!(user(headers, metering, body).as_deref(), expected, "{headers:?} {metering:?} {body}");
    }
    let body = format!(r#"{{"metadata":{{"user_id":"{claude_code}"}}}}"#);
    assert_eq!(user(&[], messages, &body).as_deref(), Some("user_abc_account_1-2"));
}

#[test]
fn a_name_is_bounded_and_has_no_control_characters() {
    let long = "ü".repeat(1_000);
    let found = user(&[("x-dheera-ai-end-user-id", &long)], Metering::Free, "").unwrap();
    assert_eq!(found.chars().count(), 256);
    assert_eq!(user(&[("x-dheera-ai-end-user-id", "\u{1}\t")], Metering::Free, ""), None);
    let deep = format!(r#"{{"requestMetadata":{{"user":{}"#, "[".repeat(100_000));
    assert_eq!(user(&[], Metering::Converse, &deep), None);
}

#[test]
fn tags_of_the_operator_come_first_and_stand_there_once() {
    let record =
        |tags: &[&str]| Profile { record: Arc::new(Record { tags: names(tags), ..Record::default() }), budget: None };
    let holder = Holder { key: record(&["a", "b"]), team: Some(record(&["b", "c"])), user: None };
    let caller = Caller::Key(Arc::new(holder));
    assert_eq!(tagged(&[("x-litellm-tags", "d, a ,,e")], &caller), ["a", "b", "c", "d", "e"]);
    assert_eq!(tagged(&[], &caller), ["a", "b", "c"]);
    assert!(tagged(&[], &Caller::Master).is_empty());
    let many = (0..100).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(tagged(&[("x-dheera-ai-tags", &many)], &caller).len(), 32);
    let long = "x".repeat(500);
    assert_eq!(tagged(&[("x-dheera-ai-tags", &long)], &Caller::Anonymous)[0].len(), 128);
}
