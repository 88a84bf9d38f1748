//! Reads one mapping of the configuration: checks its keys against those known, follows `os.environ/NAME`, and reads
//! numbers, seconds and switches, telling every mistake to [`Findings`] with its place.
//!
//! It knows no particular key. Numbers are read from their text, decimals into integers, so no float is involved.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::known_keys::{Key, SECTIONS, Status};
use super::problem::{At, Findings, Located, Origin, nearest};
use super::secrets::{Environment, is_variable_name, reference};
use crate::budget::command::AMOUNT_MAX;
use crate::budget::period::Period;
use crate::types::money::{NanoUsd, RateError};
use crate::types::secret::Secret;
use crate::yaml::{Content, Entry, Node, Place};

/// A scalar, still as text.
pub(super) type Text = Located<Secret>;

/// What reading needs besides the tree.
pub(super) struct Reader<'a> {
    pub(super) file: Arc<str>,
    pub(super) environment: &'a dyn Environment,
    pub(super) findings: &'a mut Findings,
}

/// A mapping whose keys were checked. Holds only active keys, under their primary names.
pub(super) struct Section<'n> {
    pub(super) at: At,
    /// Whether it was a mapping at all; if not, nothing is missing in it.
    readable: bool,
    entries: Vec<(&'static str, At, &'n Node)>,
}

impl Reader<'_> {
    pub(super) fn at(&self, place: Place, path: impl Into<String>) -> At {
        let origin = Origin::File { name: Arc::clone(&self.file), line: place.line, column: place.column };
        At { origin, path: path.into(), variable: None }
    }

    /// The entries of a mapping with their places, unchecked; a problem unless it is one. Nothing written is empty.
    pub(super) fn mapping<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n [Entry]> {
        match &node.content {
            Content::Map(entries) => Some(entries),
            _ if node.is_null() => Some(&[]),
            _ => {
                let at = self.at(node.place, path);
                let what = format!("must be a mapping of keys to values, but is {}", node.kind());
                self.findings.problem(&at, what, "Write `key: value` lines, indented below it");
                None
            }
        }
    }

    /// The elements of a list; a problem unless it is one. Nothing written is empty.
    pub(super) fn list<'n>(&mut self, node: &'n Node, path: &str) -> &'n [Node] {
        match &node.content {
            Content::List(elements) => elements,
            _ if node.is_null() => &[],
            _ => {
                let at = self.at(node.place, path);
                let what = format!("must be a list, but is {}", node.kind());
                self.findings.problem(&at, what, "Begin each element with `- `");
                &[]
            }
        }
    }

    /// Checks the keys of a mapping. `extra` are further active keys (prices); `descriptive` is a prefix whose keys
    /// are ignored with a warning.
    pub(super) fn section<'n>(
        &mut self,
        node: &'n Node,
        path: &str,
        keys: &[Key],
        extra: &[&'static str],
        descriptive: Option<&str>,
    ) -> Section<'n> {
        let entries = self.mapping(node, path);
        let mut section = Section { at: self.at(node.place, path), readable: entries.is_some(), entries: Vec::new() };
        for entry in entries.unwrap_or_default() {
            let at = self.at(entry.key_place, join(path, &entry.key.escape_debug().to_string()));
            if let Some(name) = extra.iter().find(|name| **name == entry.key) {
                section.entries.push((name, at, &entry.value));
                continue;
            }
            let known = keys.iter().find(|key| key.name == entry.key);
            match known.map(|key| (key.name, key.status)) {
                Some((name, Status::Active) | (_, Status::AliasOf(name))) => {
                    self.admit(&mut section, name, at, &entry.value);
                }
                Some((_, Status::Unsupported(remedy))) => {
                    self.findings.problem(&at, "is known but not supported by this version", remedy);
                }
                Some((_, Status::Ignored(why))) => {
                    self.findings.warn(&at, format!("has no effect: {why}"), "Remove it");
                }
                None if descriptive.is_some_and(|prefix| entry.key.starts_with(prefix)) => {
                    self.findings.warn(&at, "has no effect: it describes the model", "Remove it");
                }
                None => self.unknown_key(&at, &entry.key, keys, extra),
            }
        }
        section
    }

    fn admit<'n>(&mut self, section: &mut Section<'n>, name: &'static str, at: At, node: &'n Node) {
        if let Some((_, first, _)) = section.entries.iter().find(|(other, ..)| *other == name) {
            let what = format!("is another name of `{}`, which is written at {}", first.path, first.origin);
            self.findings.problem(&at, what, "Keep one of the two");
            return;
        }
        section.entries.push((name, at, node));
    }

    fn unknown_key(&mut self, at: &At, key: &str, keys: &[Key], extra: &[&'static str]) {
        let elsewhere = SECTIONS.iter().find(|(_, others)| others.iter().any(|other| other.name == key));
        let remedy = match (elsewhere, nearest(key, keys.iter().map(|key| key.name).chain(extra.iter().copied()))) {
            (Some((section, _)), _) => format!("`{key}` belongs in {section}"),
            (None, Some(near)) => format!("Did you mean `{near}`?"),
            (None, None) => "Remove it; docs/configuration.md lists the keys of this section".to_owned(),
        };
        self.findings.problem(at, "unknown key", remedy);
    }

    /// The text of a scalar, with `os.environ/NAME` followed; a problem if there is none.
    pub(super) fn text(&mut self, at: At, node: &Node) -> Option<Text> {
        let at = At { origin: self.at(node.place, "").origin, ..at };
        let Content::Scalar { text, .. } = &node.content else {
            let what = format!("must be a single value, but is {}", node.kind());
            self.findings.problem(&at, what, "Write the value after the colon");
            return None;
        };
        if node.is_null() || text.is_empty() {
            self.findings.problem(&at, "has no value", "Give it one or remove the key");
            return None;
        }
        match reference(text.expose()) {
            Some(name) => self.variable(at, name),
            None => Some(Located { value: text.clone(), at }),
        }
    }

    fn variable(&mut self, mut at: At, name: &str) -> Option<Text> {
        if !is_variable_name(name) {
            let what = "`os.environ/` is not followed by the name of an environment variable";
            self.findings.problem(&at, what, "Names consist of letters, digits and underscores");
            return None;
        }
        match self.environment.variable(name) {
            Ok(Some(value)) if !value.is_empty() => {
                at.variable = Some(name.into());
                return Some(Located { value, at });
            }
            Ok(Some(_)) => {
                let what = format!("the environment variable {name} is set but empty");
                self.findings.problem(&at, what, format!("Give {name} a value or remove this key"));
            }
            Ok(None) => {
                let what = format!("the environment variable {name} is not set");
                self.findings.problem(&at, what, format!("Set {name} before the start or write the value here"));
            }
            Err(_) => {
                let what = format!("the environment variable {name} is not UTF-8");
                self.findings.problem(&at, what, format!("Set {name} to plain text"));
            }
        }
        None
    }

    /// A whole number within bounds.
    pub(super) fn count(&mut self, text: &Text, bounds: RangeInclusive<u64>) -> Option<Located<u64>> {
        let shown = text.value.expose().trim();
        match shown.parse::<u64>().ok().filter(|_| !shown.starts_with('+')) {
            Some(value) if bounds.contains(&value) => Some(Located { value, at: text.at.clone() }),
            _ => {
                let what = format!("{} is not a whole number in range", text.at.quote(shown));
                let remedy = format!("Write a number from {} to {}", bounds.start(), bounds.end());
                self.findings.problem(&text.at, what, remedy);
                None
            }
        }
    }

    /// Seconds, with up to three decimals, more than zero and at most a day.
    pub(super) fn seconds(&mut self, text: &Text) -> Option<Located<Duration>> {
        let shown = text.value.expose().trim();
        let Some(ms) = milliseconds(shown).filter(|ms| (1..=86_400_000).contains(ms)) else {
            let what = format!("{} is not a number of seconds in range", text.at.quote(shown));
            self.findings.problem(&text.at, what, "Write seconds from 0.001 to 86400, such as `600` or `2.5`");
            return None;
        };
        Some(Located { value: Duration::from_millis(ms), at: text.at.clone() })
    }

    /// Dollars, exactly, up to what one account may hold.
    fn dollars(&mut self, text: &Text) -> Option<Located<NanoUsd>> {
        let shown = text.value.expose().trim();
        let what = match NanoUsd::from_usd(shown) {
            Ok(value) if value <= AMOUNT_MAX => return Some(Located { value, at: text.at.clone() }),
            Ok(_) | Err(RateError::TooLarge) => "is more than a budget may be",
            Err(RateError::TooFine) => "has more than nine decimals",
            Err(RateError::Negative) => "is negative",
            Err(RateError::NotANumber) => "is not an amount of US dollars",
        };
        let what = format!("{} {what}", text.at.quote(shown));
        let remedy = format!("Write dollars from 0 to {}, such as `100` or `0.25`", AMOUNT_MAX.0 / 1_000_000_000);
        self.findings.problem(&text.at, what, remedy);
        None
    }

    fn period(&mut self, text: &Text) -> Option<Located<Period>> {
        let shown = text.value.expose().trim();
        match Period::parse(shown) {
            Ok(value) => Some(Located { value, at: text.at.clone() }),
            Err(error) => {
                // Its text ends with what to write, after a colon.
                let error = error.to_string();
                let what = format!("{} {}", text.at.quote(shown), error.split(':').next().unwrap_or_default());
                self.findings.problem(&text.at, what, "Write a number and a unit, such as `24h`, `7d` or `1mo`");
                None
            }
        }
    }

    /// A span of time as a number and a unit, from an hour to ten years.
    fn span(&mut self, text: &Text) -> Option<Located<Duration>> {
        let shown = text.value.expose().trim();
        if let Some(value) = span(shown).filter(|span| (SPAN_MIN..=SPAN_MAX).contains(span)) {
            return Some(Located { value, at: text.at.clone() });
        }
        let what = format!("{} is not a span of time from an hour to ten years", text.at.quote(shown));
        self.findings.problem(&text.at, what, "Write a number and a unit (h, d, w, mo), such as `90d`");
        None
    }

    /// One of a few words.
    fn choice<T: Copy>(&mut self, text: &Text, words: &[(&str, T)]) -> Option<Located<T>> {
        let shown = text.value.expose().trim();
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == shown) {
            return Some(Located { value: *value, at: text.at.clone() });
        }
        let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let what = format!("{} is not one of the words for this key", text.at.quote(shown));
        self.findings.problem(&text.at, what, format!("Write {}", known.join(" or ")));
        None
    }

    pub(super) fn switch(&mut self, text: &Text) -> Option<Located<bool>> {
        let shown = text.value.expose().trim();
        let value = match shown {
            "true" | "True" | "TRUE" => true,
            "false" | "False" | "FALSE" => false,
            _ => {
                let what = format!("{} is neither true nor false", text.at.quote(shown));
                self.findings.problem(&text.at, what, "Write `true` or `false`");
                return None;
            }
        };
        Some(Located { value, at: text.at.clone() })
    }
}

impl<'n> Section<'n> {
    /// The node of a key that is itself a section or a list.
    pub(super) fn node(&self, name: &str) -> Option<(&At, &'n Node)> {
        self.entries.iter().find(|(other, ..)| *other == name).map(|(_, at, node)| (at, *node))
    }

    pub(super) fn text(&self, reader: &mut Reader<'_>, name: &str) -> Option<Text> {
        let (at, node) = self.node(name)?;
        reader.text(at.clone(), node)
    }

    /// Tells a problem if the key is not there at all.
    pub(super) fn require(&self, reader: &mut Reader<'_>, name: &str, remedy: &str) {
        if self.readable && self.node(name).is_none() {
            reader.findings.problem(&self.at, format!("has no `{name}`"), remedy);
        }
    }

    pub(super) fn count(
        &self,
        reader: &mut Reader<'_>,
        name: &str,
        bounds: RangeInclusive<u64>,
    ) -> Option<Located<u64>> {
        let text = self.text(reader, name)?;
        reader.count(&text, bounds)
    }

    pub(super) fn seconds(&self, reader: &mut Reader<'_>, name: &str) -> Option<Located<Duration>> {
        let text = self.text(reader, name)?;
        reader.seconds(&text)
    }

    /// As [`Self::seconds`], and zero.
    pub(super) fn seconds_or_zero(&self, reader: &mut Reader<'_>, name: &str) -> Option<Located<Duration>> {
        let text = self.text(reader, name)?;
        if milliseconds(text.value.expose().trim()) == Some(0) {
            return Some(Located { value: Duration::ZERO, at: text.at });
        }
        reader.seconds(&text)
    }

    pub(super) fn dollars(&self, reader: &mut Reader<'_>, name: &str) -> Option<Located<NanoUsd>> {
        let text = self.text(reader, name)?;
        reader.dollars(&text)
    }

    pub(super) fn period(&self, reader: &mut Reader<'_>, name: &str) -> Option<Located<Period>> {
        let text = self.text(reader, name)?;
        reader.period(&text)
    }

    pub(super) fn span(&self, reader: &mut Reader<'_>, name: &str) -> Option<Located<Duration>> {
        let text = self.text(reader, name)?;
        reader.span(&text)
    }

    pub(super) fn choice<T: Copy>(
        &self,
        reader: &mut Reader<'_>,
        name: &str,
        words: &[(&str, T)],
    ) -> Option<Located<T>> {
        let text = self.text(reader, name)?;
        reader.choice(&text, words)
    }

    pub(super) fn switch(&self, reader: &mut Reader<'_>, name: &str) -> Option<Located<bool>> {
        let text = self.text(reader, name)?;
        reader.switch(&text)
    }

    /// The texts of those keys that are in `names`, in the order of the file.
    pub(super) fn texts(&self, reader: &mut Reader<'_>, names: &[&'static str]) -> Vec<(&'static str, Text)> {
        let wanted = self.entries.iter().filter(|(name, ..)| names.contains(name));
        wanted.filter_map(|(name, at, node)| reader.text(at.clone(), node).map(|text| (*name, text))).collect()
    }
}

/// `path.key`, or the key alone at the top.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Decimal seconds as whole milliseconds; `None` for anything else and for finer decimals.
fn milliseconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(thousandths)
}

const SPAN_MIN: Duration = Duration::from_hours(1);
const SPAN_MAX: Duration = Duration::from_hours(24 * 366 * 10);

/// `90d` as time. A month is the longest there is, so that what is kept for a month is never missing on its last day.
fn span(text: &str) -> Option<Duration> {
    let (count, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit())?);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "mo" => 31 * 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(count.parse::<u64>().ok()?.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_in_every_unit() {
        for (text, expected) in [
            ("90d", Some(90 * 86_400)),
            ("2w", Some(14 * 86_400)),
            ("1mo", Some(31 * 86_400)),
            ("36h", Some(129_600)),
            ("90m", Some(5_400)),
            ("3600s", Some(3_600)),
            ("90", None),
            ("d", None),
            ("1y", None),
            ("1.5d", None),
            ("-1d", None),
            ("99999999999999999999d", None),
            ("999999999999999999w", None),
        ] {
            assert_eq!(span(text).map(|span| span.as_secs()), expected, "{text}");
        }
    }

    #[test]
    fn seconds_are_read_without_a_float() {
        for (text, expected) in [
            ("600", Some(600_000)),
            ("2.5", Some(2_500)),
            ("0.001", Some(1)),
            ("1.50000", Some(1_500)),
            ("0.0001", None),
            ("1e3", None),
            (".5", None),
            ("-1", None),
            ("10s", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
    }
}
