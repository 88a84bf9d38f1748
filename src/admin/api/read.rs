//! Reads the value of one field: what it must be, how long it may be, and what to write instead.
//!
//! An error is the end of a sentence that begins with the field's name.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::json::Members;
use crate::budget::limit::BudgetWindow;
use crate::budget::period::Period;
use crate::types::money::NanoUsd;

pub(super) const TEXT_CHARACTERS_MAX: usize = 256;
const LIST_MAX: usize = 256;
const METADATA_BYTES_MAX: usize = 16 * 1024;

pub(super) type Read<T> = Result<T, String>;

pub(super) fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

/// `null`, `false`, an empty list or object: says nothing, also about what is not supported.
pub(super) fn is_nothing(raw: &RawValue) -> bool {
    let text: String = raw.get().chars().filter(|character| !character.is_ascii_whitespace()).take(6).collect();
    matches!(text.as_str(), "null" | "false" | "[]" | "{}" | "\"\"")
}

/// Text that is not empty, trimmed, without control characters.
pub(super) fn text(raw: &RawValue) -> Read<String> {
    let text: String = serde_json::from_str(raw.get()).map_err(|_| "must be a text".to_owned())?;
    check_text(&text)?;
    Ok(text)
}

pub(super) fn check_text(text: &str) -> Read<()> {
    if text.trim().is_empty() {
        return Err("is empty: leave it out, or write null to clear it".to_owned());
    }
    if text.trim() != text {
        return Err("begins or ends with a space".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("has a control character".to_owned());
    }
    if text.chars().count() > TEXT_CHARACTERS_MAX {
        return Err(format!("is longer than {TEXT_CHARACTERS_MAX} characters"));
    }
    Ok(())
}

/// An id, which also stands in paths and headers.
pub(super) fn id(raw: &RawValue) -> Read<String> {
    text(raw)
}

pub(super) fn texts(raw: &RawValue) -> Read<Vec<String>> {
    let list: Vec<String> =
        serde_json::from_str(raw.get()).map_err(|_| "must be a list of texts, such as [\"a\", \"b\"]".to_owned())?;
    if list.len() > LIST_MAX {
        return Err(format!("has more than {LIST_MAX} entries"));
    }
    let mut unique: Vec<String> = Vec::with_capacity(list.len());
    for entry in list {
        check_text(&entry).map_err(|problem| format!("has an entry that {problem}"))?;
        if !unique.contains(&entry) {
            unique.push(entry);
        }
    }
    Ok(unique)
}

pub(super) fn flag(raw: &RawValue) -> Read<bool> {
    serde_json::from_str(raw.get()).map_err(|_| "must be true or false".to_owned())
}

pub(super) fn count(raw: &RawValue) -> Read<u64> {
    serde_json::from_str(raw.get()).map_err(|_| "must be a whole number that is not negative".to_owned())
}

/// Dollars as they are written.
pub(super) fn usd(raw: &RawValue) -> Read<NanoUsd> {
    let text = raw.get();
    if !text.starts_with(|character: char| character == '-' || character.is_ascii_digit()) {
        return Err("must be a number of dollars, such as 10 or 0.05".to_owned());
    }
    NanoUsd::from_usd(text).map_err(|_| match text.as_bytes() {
        [b'-', ..] => "is negative: it must be a number of dollars, such as 10 or 0.05".to_owned(),
        _ => "must be dollars with at most nine decimals, and less than ten billion".to_owned(),
    })
}

pub(super) fn period(raw: &RawValue) -> Read<Period> {
    let text: String =
        serde_json::from_str(raw.get()).map_err(|_| "must be a duration, such as \"30d\" or \"1mo\"".to_owned())?;
    Period::parse(&text).map_err(|error| error.to_string())
}

/// `None` for `"-1"`, which LiteLLM reads as "never".
pub(super) fn duration(raw: &RawValue) -> Read<Option<Period>> {
    if matches!(raw.get(), "\"-1\"" | "-1") { Ok(None) } else { period(raw).map(Some) }
}

pub(super) fn windows(raw: &RawValue) -> Read<Vec<BudgetWindow>> {
    let list: Vec<Box<RawValue>> = serde_json::from_str(raw.get())
        .map_err(|_| "must be a list, such as [{\"budget_duration\": \"1d\", \"max_budget\": 1}]".to_owned())?;
    if list.len() > LIST_MAX {
        return Err(format!("has more than {LIST_MAX} entries"));
    }
    list.iter()
        .enumerate()
        .map(|(index, window)| {
            self::window(window).map_err(|problem| format!("has an entry, number {index}, that {problem}"))
        })
        .collect()
}

/// `{"max_budget": 1, "budget_duration": "1d"}`, with LiteLLM's other names for both, or an amount for ever.
fn window(raw: &RawValue) -> Read<BudgetWindow> {
    let shape = "must be {\"max_budget\": 1, \"budget_duration\": \"1d\"}";
    if !raw.get().starts_with('{') {
        return Ok(BudgetWindow { max_budget: usd(raw).map_err(|_| shape.to_owned())?, budget_duration: None });
    }
    let mut members: Members = serde_json::from_str(raw.get()).map_err(|error| format!("{shape}: {error}"))?;
    let mut either = |one: &str, other: &str| match (members.take(one), members.take(other)) {
        (Some(_), Some(_)) => Err(format!("has both `{one}` and `{other}`, which mean the same")),
        (one, other) => Ok(one.or(other).filter(|raw| !is_null(raw))),
    };
    let amount = either("max_budget", "budget_limit")?.ok_or_else(|| format!("has no max_budget: it {shape}"))?;
    let duration = either("budget_duration", "time_period")?;
    if let Some((name, _)) = members.0.first() {
        let shown: String = name.chars().take(64).collect();
        return Err(format!("has the unknown member `{shown}`: it {shape}"));
    }
    Ok(BudgetWindow {
        max_budget: usd(&amount).map_err(|problem| format!("has a max_budget that {problem}"))?,
        budget_duration: duration
            .map(|raw| period(&raw).map_err(|problem| format!("has a budget_duration that {problem}")))
            .transpose()?,
    })
}

pub(super) fn model_windows(raw: &RawValue) -> Read<BTreeMap<String, BudgetWindow>> {
    by_name(raw, "{\"claude\": {\"max_budget\": 1, \"budget_duration\": \"1d\"}}", window)
}

pub(super) fn model_counts(raw: &RawValue) -> Read<BTreeMap<String, u64>> {
    by_name(raw, "{\"claude\": 10}", count)
}

pub(super) fn names(raw: &RawValue) -> Read<BTreeMap<String, String>> {
    by_name(raw, "{\"gpt-4\": \"my-claude\"}", text)
}

fn by_name<T>(raw: &RawValue, example: &str, value: impl Fn(&RawValue) -> Read<T>) -> Read<BTreeMap<String, T>> {
    let members: Members =
        serde_json::from_str(raw.get()).map_err(|error| format!("must be an object, such as {example}: {error}"))?;
    let entries = members.0.into_iter().map(|(name, raw)| {
        check_text(&name).map_err(|problem| format!("has a name that {problem}"))?;
        let value = value(&raw).map_err(|problem| format!("has an entry `{name}` that {problem}"))?;
        Ok((name, value))
    });
    entries.collect()
}

pub(super) fn metadata(raw: &RawValue) -> Read<Map<String, Value>> {
    if raw.get().len() > METADATA_BYTES_MAX {
        return Err(format!("is longer than {METADATA_BYTES_MAX} bytes"));
    }
    serde_json::from_str(raw.get()).map_err(|_| "must be an object, such as {\"project\": \"x\"}".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn dollars_are_read_exactly() {
        for (text, expected) in [
            ("0.1", Some(100_000_000)),
            ("0.30000000000", Some(300_000_000)),
            ("1e-9", Some(1)),
            ("9007199.254740991", Some(9_007_199_254_740_991)),
            ("1e2", Some(100_000_000_000)),
            ("0", Some(0)),
            ("1e-10", None),
            ("0.0000000001", None),
            ("-1", None),
            ("\"1\"", None),
            ("true", None),
            ("1e30", None),
            ("[1]", None),
        ] {
            assert_eq!(usd(&raw(text)).ok(), expected.map(NanoUsd), "{text}");
        }
    }

    #[test]
    fn windows_take_both_ways_of_writing_them() {
        let windows = model_windows(&raw(
            r#"{"a":{"budget_limit":0.5,"time_period":"1d"},"b":{"max_budget":1,"budget_duration":null},"c":2}"#,
        ));
        let windows = windows.unwrap();
        assert_eq!(windows["a"].max_budget, NanoUsd(500_000_000));
        assert_eq!(windows["a"].budget_duration, Some(Period::parse("1d").unwrap()));
        assert_eq!(windows["b"].budget_duration, None);
        assert_eq!(windows["c"].max_budget, NanoUsd(2_000_000_000));
        for text in [
            r#"{"a":{}}"#,
            r#"{"a":{"max_budget":1,"budget_limit":1}}"#,
            r#"{"a":{"max_budget":1,"x":1}}"#,
            r#"{"a":{"max_budget":1,"budget_duration":"1x"}}"#,
            r#"{"":{"max_budget":1}}"#,
            r#"{"a":"1"}"#,
            "[]",
        ] {
            assert!(model_windows(&raw(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn texts_are_bounded_and_clean() {
        assert_eq!(texts(&raw(r#"["a","b","a"]"#)).unwrap(), ["a", "b"]);
        let long = format!("\"{}\"", "x".repeat(257));
        for value in ["1", "\"\"", "\" a\"", r#""a\nb""#, "null", long.as_str()] {
            assert!(text(&raw(value)).is_err(), "{value}");
        }
        assert!(texts(&raw(&format!("[{}]", vec!["\"a\""; 257].join(",")))).is_err());
        assert!(is_nothing(&raw("{ }")) && is_nothing(&raw("false")) && !is_nothing(&raw("0")));
    }
}
