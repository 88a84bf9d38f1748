//! Daily sums of the spend log. A pure function of entries: whoever keeps the log adds them up as it writes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::budget::entry::{Entry, EntryKind, RollupKey};

/// What is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    pub cost_nano_usd: i64,
    pub requests: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

impl Sums {
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            cost_nano_usd: self.cost_nano_usd.saturating_add(other.cost_nano_usd),
            requests: self.requests.saturating_add(other.requests),
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
        }
    }

    /// What one entry adds. Money always; requests and tokens only where a call ended, so that an expired lease that
    /// is settled late counts one request.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        let money = Self { cost_nano_usd: entry.cost_nano_usd, ..Self::default() };
        if entry.kind != EntryKind::Request {
            return money;
        }
        Self {
            requests: 1,
            prompt_tokens: entry.row.prompt_tokens,
            completion_tokens: entry.row.completion_tokens,
            ..money
        }
    }
}

/// The day of a moment, in UTC: `2026-11-22`.
#[must_use]
pub fn day(at_ms: u64) -> String {
    let timestamp = i64::try_from(at_ms).ok().and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok());
    timestamp.unwrap_or(Timestamp::MAX).to_zoned(TimeZone::UTC).date().to_string()
}

/// What `entries` add to the sums of their days.
#[must_use]
pub fn tally(entries: &[Entry]) -> BTreeMap<(String, RollupKey), Sums> {
    let mut sums: BTreeMap<(String, RollupKey), Sums> = BTreeMap::new();
    for entry in entries {
        let day = day(entry.at_ms);
        for key in entry.row.rollups() {
            let sum = sums.entry((day.clone(), key)).or_default();
            *sum = sum.plus(Sums::of(entry));
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::entry::{Dimension, Row};

    #[test]
    fn days_are_those_of_utc() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(1_795_391_999_999), "2026-11-22");
        assert_eq!(day(1_795_392_000_000), "2026-11-23");
        assert_eq!(day(u64::MAX), "9999-12-30");
    }

    #[test]
    fn an_entry_counts_once_on_each_dimension_and_requests_only_where_a_call_ended() {
        let row = Row {
            key_id: "k".into(),
            team_id: Some("t".into()),
            tags: vec!["a".into(), "b".into()],
            prompt_tokens: 7,
            completion_tokens: 3,
            ..Row::default()
        };
        let entry = |kind, cost_nano_usd| Entry { at_ms: 5, kind, cost_nano_usd, row: row.clone().into() };
        let sums = tally(&[
            entry(EntryKind::Expired, 100),
            entry(EntryKind::Request, 40),
            entry(EntryKind::Corrected, -100),
            entry(EntryKind::Reset, 0),
        ]);
        let expected = Sums { cost_nano_usd: 40, requests: 1, prompt_tokens: 7, completion_tokens: 3 };
        assert_eq!(sums.values().collect::<Vec<_>>(), [&expected; 4]);
        let of: Vec<_> = sums.keys().map(|(_, key)| (key.dimension, key.id.as_str())).collect();
        assert_eq!(of, [(Dimension::Key, "k"), (Dimension::Team, "t"), (Dimension::Tag, "a"), (Dimension::Tag, "b")]);
    }
}
