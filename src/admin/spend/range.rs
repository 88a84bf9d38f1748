//! Ranges of days, as `start_date` and `end_date` say them: both inclusive, in UTC, at most a leap year long.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::{Asked, Refusal};

/// The longest range: all days of a leap year.
const DAYS_MAX: i32 = 366;

/// Days from `first` to `last`, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Days {
    pub(super) first: Date,
    pub(super) last: Date,
}

impl Days {
    /// The days asked for, or `None` when none are. A range without an end ends today; one without a beginning begins
    /// with the month of its end.
    pub(super) fn asked(asked: &Asked, now_ms: u64) -> Result<Option<Self>, Refusal> {
        let date = |name: &str| asked.get(name).map(|text| read(name, text)).transpose();
        let (first, last) = (date("start_date")?, date("end_date")?);
        if first.is_none() && last.is_none() {
            return Ok(None);
        }
        let last = match last {
            Some(last) => last,
            None => today(now_ms)?,
        };
        let first = first.unwrap_or_else(|| last.first_of_month());
        if first > last {
            return Err(Refusal::Invalid(format!("The range begins on {first}, after its end on {last}.")));
        }
        let days = first.until(last).map_or(i32::MAX, |span| span.get_days().saturating_add(1));
        if days > DAYS_MAX {
            let message = format!("{first} to {last} are {days} days; ask for at most {DAYS_MAX} at a time.");
            return Err(Refusal::Invalid(message));
        }
        Ok(Some(Self { first, last }))
    }

    /// The days asked for, or else this month so far.
    pub(super) fn asked_or_month(asked: &Asked, now_ms: u64) -> Result<Self, Refusal> {
        if let Some(days) = Self::asked(asked, now_ms)? {
            return Ok(days);
        }
        let last = today(now_ms)?;
        Ok(Self { first: last.first_of_month(), last })
    }

    /// From the first moment of the first day to that after the last, in Unix milliseconds.
    pub(super) fn millis(self) -> Result<(u64, u64), Refusal> {
        let after = self.last.checked_add(1.day()).map_err(|_| outside())?;
        Ok((midnight_ms(self.first)?, midnight_ms(after)?))
    }
}

fn read(name: &str, text: &str) -> Result<Date, Refusal> {
    let wrong = || Refusal::Invalid(format!("`{name}` must be a day such as 2026-11-22, not `{text}`."));
    // jiff reads more forms than the one that is documented.
    let formed = text.len() == 10
        && text.bytes().enumerate().all(
            |(at, byte)| {
                if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() }
            },
        );
    if !formed {
        return Err(wrong());
    }
    let date: Date = text.parse().map_err(|_| wrong())?;
    // Before the epoch nothing can have been spent, and milliseconds count from there.
    if date.year() < 1970 { Err(wrong()) } else { Ok(date) }
}

fn today(now_ms: u64) -> Result<Date, Refusal> {
    let moment = i64::try_from(now_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    moment.map(|moment| moment.to_zoned(TimeZone::UTC).date()).ok_or_else(outside)
}

fn midnight_ms(date: Date) -> Result<u64, Refusal> {
    let midnight = date.to_zoned(TimeZone::UTC).map_err(|_| outside())?;
    u64::try_from(midnight.timestamp().as_millisecond()).map_err(|_| outside())
}

fn outside() -> Refusal {
    Refusal::Invalid("The range reaches beyond what a clock can tell. Ask for other days.".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22T12:00:00Z.
    const NOW_MS: u64 = 1_795_348_800_000;

    fn days(query: &str) -> Result<Option<(String, String)>, Refusal> {
        let asked = Asked::read(query, &["start_date", "end_date"])?;
        Ok(Days::asked(&asked, NOW_MS)?.map(|days| (days.first.to_string(), days.last.to_string())))
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let some = |first: &str, last: &str| Ok(Some((first.to_owned(), last.to_owned())));
        assert_eq!(days(""), Ok(None));
        assert_eq!(days("start_date=2026-11-20"), some("2026-11-20", "2026-11-22"));
        assert_eq!(days("end_date=2026-10-05"), some("2026-10-01", "2026-10-05"));
        assert_eq!(days("start_date=2024-01-01&end_date=2024-12-31"), some("2024-01-01", "2024-12-31"));
        assert_eq!(days("start_date=2024-02-29&end_date=2024-02-29"), some("2024-02-29", "2024-02-29"));
    }

    #[test]
    fn ranges_that_make_no_sense_are_refused() {
        for query in [
            "start_date=2026-11-23",
            "start_date=2025-11-21&end_date=2026-11-22",
            "start_date=0001-01-01&end_date=9999-12-31",
            "start_date=2026-02-29&end_date=2026-03-01",
            "start_date=1969-12-31&end_date=1970-01-01",
            "start_date=2026-1-1",
            "start_date=20261101",
            "start_date=2026-11-20T00:00",
            "start_date=today",
            "end_date=2026-13-01",
        ] {
            assert!(matches!(days(query), Err(Refusal::Invalid(_))), "{query}: {:?}", days(query));
        }
        assert!(days("start_date=2025-11-22&end_date=2026-11-22").is_ok());
    }

    #[test]
    fn a_day_lasts_from_midnight_to_midnight() {
        let asked = Asked::read("start_date=2026-11-22", &["start_date"]).unwrap();
        let days = Days::asked(&asked, NOW_MS).unwrap().unwrap();
        assert_eq!(days.millis(), Ok((1_795_305_600_000, 1_795_392_000_000)));
        let edge = Days { first: Date::MAX, last: Date::MAX };
        assert!(edge.millis().is_err());
    }
}
