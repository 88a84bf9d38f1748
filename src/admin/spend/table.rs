//! Lines of named cells, written as JSON objects or as CSV. Amounts are exact decimal numbers in both.
//!
//! A cell of CSV that a spreadsheet would take for a formula gets an apostrophe in front (OWASP, "CSV Injection"):
//! names of tags and end users come from clients. Numbers are ours and stay as they are.

use serde_json::Value;

use super::Refusal;
use crate::admin::request::Answer;
use crate::types::money::NanoUsd;

/// How an answer is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Csv,
}

/// What stands in a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Empty,
    Text(String),
    Count(u64),
    /// Nano-dollars; negative where something is taken back.
    Amount(i128),
    List(Vec<String>),
}

/// A line: names and cells, in their order. A name that begins with `metadata.` is a member of `metadata` in JSON.
pub(super) type Line = Vec<(&'static str, Cell)>;

impl Form {
    /// CSV for those who accept it by name, JSON for all others.
    pub(super) fn of(accept: Option<&str>) -> Self {
        let wants_csv = accept
            .unwrap_or_default()
            .split(',')
            .any(|range| range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/csv"));
        if wants_csv { Self::Csv } else { Self::Json }
    }
}

impl Cell {
    pub(super) fn text(text: &str) -> Self {
        if text.is_empty() { Self::Empty } else { Self::Text(text.to_owned()) }
    }

    pub(super) fn maybe(text: Option<&str>) -> Self {
        text.map_or(Self::Empty, Self::text)
    }

    fn push_json(&self, into: &mut String) {
        match self {
            Self::Empty => into.push_str("null"),
            Self::Text(text) => into.push_str(&Value::from(text.as_str()).to_string()),
            Self::Count(count) => into.push_str(&count.to_string()),
            Self::Amount(amount) => into.push_str(&usd(*amount)),
            Self::List(items) => into.push_str(&Value::from(items.as_slice()).to_string()),
        }
    }

    fn csv(&self) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Text(text) => harmless(text.clone()),
            Self::Count(count) => count.to_string(),
            Self::Amount(amount) => usd(*amount),
            Self::List(items) => harmless(items.join(";")),
        }
    }
}

/// Nano-dollars as a decimal number of dollars.
pub(super) fn usd(nano_usd: i128) -> String {
    let size = NanoUsd(u64::try_from(nano_usd.unsigned_abs()).unwrap_or(u64::MAX)).to_usd_number();
    if nano_usd < 0 { format!("-{size}") } else { size }
}

fn harmless(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { format!("'{text}") } else { text }
}

/// Appends a line as a JSON object.
pub(super) fn push_object(line: &Line, into: &mut String) {
    let (inner, outer): (Vec<_>, Vec<_>) = line.iter().partition(|(name, _)| name.starts_with("metadata."));
    into.push('{');
    push_members(outer.iter().map(|(name, cell)| (*name, cell)), into);
    if !inner.is_empty() {
        into.push_str(",\"metadata\":{");
        let inner = inner.iter().map(|(name, cell)| (name.trim_start_matches("metadata."), cell));
        push_members(inner, into);
        into.push('}');
    }
    into.push('}');
}

fn push_members<'a>(members: impl Iterator<Item = (&'a str, &'a Cell)>, into: &mut String) {
    for (at, (name, cell)) in members.enumerate() {
        if at > 0 {
            into.push(',');
        }
        into.push_str(&Value::from(name).to_string());
        into.push(':');
        cell.push_json(into);
    }
}

/// `{"data": lines, …}` with the cells of `more` beside it.
pub(super) fn json(lines: &[Line], more: &Line) -> Answer {
    let mut body = String::from("{\"data\":[");
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            body.push(',');
        }
        push_object(line, &mut body);
    }
    body.push(']');
    if !more.is_empty() {
        body.push(',');
        push_members(more.iter().map(|(name, cell)| (*name, cell)), &mut body);
    }
    body.push('}');
    Answer::of(200, "application/json", body.into_bytes())
}

/// A header row of `columns`, and the lines.
pub(super) fn csv(file: &str, columns: &[&str], lines: &[Line]) -> Result<Answer, Refusal> {
    let unwritable = |error: &dyn std::fmt::Display| Refusal::Unwritable(format!("CSV: {error}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = columns.iter().map(|name| name.trim_start_matches("metadata."));
    writer.write_record(header).map_err(|error| unwritable(&error))?;
    for line in lines {
        writer.write_record(line.iter().map(|(_, cell)| cell.csv())).map_err(|error| unwritable(&error))?;
    }
    let body = writer.into_inner().map_err(|error| unwritable(&error))?;
    let mut answer = Answer::of(200, "text/csv; charset=utf-8", body);
    answer.headers.push(("content-disposition", format!("attachment; filename=\"{file}.csv\"")));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_signed() {
        for (nano, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (-12_870_000, "-0.01287"),
            (40_000_000_000, "40"),
            (9_007_199_254_740_991, "9007199.254740991"),
            (i128::from(u64::MAX), "18446744073.709551615"),
        ] {
            assert_eq!(usd(nano), text);
        }
    }

    #[test]
    fn csv_is_for_those_who_name_it() {
        for (accept, form) in [
            (None, Form::Json),
            (Some("*/*"), Form::Json),
            (Some("application/json"), Form::Json),
            (Some("text/csv"), Form::Csv),
            (Some("application/json;q=0.1, Text/CSV; header=present"), Form::Csv),
            (Some("text/csv2"), Form::Json),
        ] {
            assert_eq!(Form::of(accept), form, "{accept:?}");
        }
    }

    #[test]
    fn a_cell_that_a_spreadsheet_would_run_is_disarmed_and_a_number_is_not() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"] {
            assert_eq!(Cell::text(text).csv(), format!("'{text}"));
            assert_eq!(Cell::List(vec![text.to_owned(), "b".to_owned()]).csv(), format!("'{text};b"));
        }
        assert_eq!(Cell::text("plain = fine").csv(), "plain = fine");
        assert_eq!(Cell::Amount(-1).csv(), "-0.000000001");
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let line = vec![("tag", Cell::text("a,\"b\"\nc")), ("spend", Cell::Amount(5)), ("alias", Cell::Empty)];
        let answer = csv("spend", &["tag", "metadata.spend", "alias"], &[line]).unwrap();
        assert_eq!(answer.body, b"tag,spend,alias\n\"a,\"\"b\"\"\nc\",0.000000005,\n");
    }

    #[test]
    fn json_nests_metadata_and_escapes() {
        let line = vec![
            ("a", Cell::text("x\"\u{7}")),
            ("metadata.kind", Cell::text("request")),
            ("b", Cell::List(vec!["t".to_owned()])),
        ];
        let answer = json(&[line], &vec![("next", Cell::Empty)]);
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        let expected = serde_json::json!({
            "data": [{ "a": "x\"\u{7}", "b": ["t"], "metadata": { "kind": "request" } }],
            "next": null,
        });
        assert_eq!(value, expected);
    }
}
