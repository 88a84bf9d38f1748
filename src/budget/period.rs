//! Durations such as `30d` and the calendar windows they stand for. A budget with a period may be spent once in every
//! window; the window's start is part of its account's name, so that a reset needs no event.
//!
//! Resets snap to the calendar of a time zone, as LiteLLM's do: `1mo` and `30d` begin on the first of a month, `1w` and
//! `7d` on a Monday, `1d` and `24h` at midnight, `1h` on the hour. The windows of a period tile time without a gap or an
//! overlap, whatever a zone does to its clocks; a day of 23 or 25 hours is one day. When a key expires is not decided by
//! windows but by [`Period::after`].

use std::fmt;

use jiff::civil::{Date, date};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp, ToSpan};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

const DAY_S: u64 = 86_400;
const HOUR_S: u64 = 3_600;
/// Ten years with three leap days.
const LENGTH_MAX_S: u64 = 3_653 * DAY_S;
const MONTHS_MAX: u32 = 120;
/// Days are counted from a Monday, so that multiples of seven days begin on one.
const MONDAY: Date = date(1970, 1, 5);
/// Periods whose current window [`Windows`] remembers.
const REMEMBERED_MAX: usize = 64;

/// A length of time, as written: `30s 30m 24h 7d 1w 1mo`. Ordered by unit, then by count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    unit: Unit,
    count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

impl Unit {
    const ALL: [Self; 6] = [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
            Self::Day => "d",
            Self::Week => "w",
            Self::Month => "mo",
        }
    }

    /// A month counts thirty days.
    const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => HOUR_S,
            Self::Day => DAY_S,
            Self::Week => 7 * DAY_S,
            Self::Month => 30 * DAY_S,
        }
    }
}

/// From `start_ms` up to, but not including, `end_ms`, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    pub start_ms: u64,
    pub end_ms: u64,
}

impl Window {
    #[must_use]
    pub const fn contains(self, at_ms: u64) -> bool {
        self.start_ms <= at_ms && at_ms < self.end_ms
    }

    #[must_use]
    pub const fn length_ms(self) -> u64 {
        self.end_ms.saturating_sub(self.start_ms)
    }
}

/// Why a text is no period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeriodError {
    NotAPeriod,
    NoUnit,
    Zero,
    TooLong,
}

impl fmt::Display for PeriodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAPeriod => "is no duration: write a whole number and s, m, h, d, w or mo, such as 24h, 30d or 1mo",
            Self::NoUnit => "has no unit: add s, m, h, d, w or mo, such as 24h, 30d or 1mo",
            Self::Zero => "is zero: the shortest duration is 1s",
            Self::TooLong => "is longer than ten years (120mo, 3653d)",
        })
    }
}

impl std::error::Error for PeriodError {}

impl Period {
    /// Reads a whole number and a unit.
    ///
    /// # Errors
    /// When the text is anything else, zero, or longer than ten years.
    pub fn parse(text: &str) -> Result<Self, PeriodError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, suffix) = text.split_at_checked(digits).ok_or(PeriodError::NotAPeriod)?;
        if number.is_empty() {
            return Err(PeriodError::NotAPeriod);
        }
        if suffix.is_empty() {
            return Err(PeriodError::NoUnit);
        }
        let unit = Unit::ALL.into_iter().find(|unit| unit.suffix() == suffix).ok_or(PeriodError::NotAPeriod)?;
        // All digits, so the only possible fault is the size.
        let count: u32 = number.parse().map_err(|_| PeriodError::TooLong)?;
        let too_long = match unit {
            Unit::Month => count > MONTHS_MAX,
            _ => u64::from(count) * unit.seconds() > LENGTH_MAX_S,
        };
        match count {
            0 => Err(PeriodError::Zero),
            _ if too_long => Err(PeriodError::TooLong),
            _ => Ok(Self { unit, count }),
        }
    }

    /// The length without regard to a calendar: a day has 24 hours, a month thirty days.
    #[must_use]
    pub const fn length_ms(self) -> u64 {
        self.length_s() * 1000
    }

    const fn length_s(self) -> u64 {
        self.count as u64 * self.unit.seconds()
    }

    /// The moment one period after `at_ms`, both Unix milliseconds. Months are those of the calendar: a month after
    /// 31 January is the last day of February.
    #[must_use]
    pub fn after(self, at_ms: u64, zone: &TimeZone) -> u64 {
        let by_calendar = || {
            let months = Span::new().try_months(i64::from(self.count)).ok()?;
            let moved = timestamp(at_ms)?.to_zoned(zone.clone()).checked_add(months).ok()?;
            u64::try_from(moved.timestamp().as_millisecond()).ok()
        };
        let calendar = if self.unit == Unit::Month { by_calendar() } else { None };
        calendar.unwrap_or_else(|| at_ms.saturating_add(self.length_ms()))
    }

    /// The window that holds `at_ms` (Unix milliseconds) in `zone`.
    ///
    /// - months: counted from January of the year 0, so `3mo` is a quarter and `12mo` a year; `30d` is one month;
    /// - whole days, however written: counted from Monday 5 January 1970, beginning at midnight;
    /// - what divides a day and is longer than an hour: by the clock on the wall, so `12h` begins at noon on every day;
    /// - what divides a day and is no longer than an hour: counted from midnight, the last one ending at the next;
    /// - anything else (`5h`, `7m`): counted from the Unix epoch, regardless of the zone.
    #[must_use]
    pub fn window(self, at_ms: u64, zone: &TimeZone) -> Window {
        self.calendar_window(at_ms, zone).unwrap_or_else(|| since(0, self.length_ms(), at_ms))
    }

    /// `None` beyond the year 9999, where the calendar ends.
    fn calendar_window(self, at_ms: u64, zone: &TimeZone) -> Option<Window> {
        let length_s = self.length_s();
        let grid = match self.unit {
            Unit::Month => Grid::Months(i64::from(self.count)),
            _ if length_s == 30 * DAY_S => Grid::Months(1),
            _ if length_s.is_multiple_of(DAY_S) => Grid::Days(i64::try_from(length_s / DAY_S).ok()?),
            _ if !DAY_S.is_multiple_of(length_s) => return Some(since(0, self.length_ms(), at_ms)),
            _ if length_s > HOUR_S => Grid::Hours(i64::try_from(length_s / 60).ok()?),
            _ => {
                let day = Grid::Days(1).window(at_ms, zone)?;
                let window = since(day.start_ms, self.length_ms(), at_ms);
                return Some(Window { end_ms: window.end_ms.min(day.end_ms), ..window });
            }
        };
        grid.window(at_ms, zone)
    }
}

/// Windows of one length, counted from an origin.
fn since(origin_ms: u64, length_ms: u64, at_ms: u64) -> Window {
    let past_ms = at_ms.saturating_sub(origin_ms);
    let start_ms = at_ms - past_ms % length_ms.max(1);
    Window { start_ms, end_ms: start_ms.saturating_add(length_ms) }
}

/// Boundaries on a calendar, numbered.
#[derive(Debug, Clone, Copy)]
enum Grid {
    Months(i64),
    Days(i64),
    /// Minutes on the clock, a divisor of a day.
    Hours(i64),
}

impl Grid {
    /// The boundaries around a moment. Clocks that are set back or a day that a zone left out may put the boundaries
    /// next to the guess on the other side of the moment or on top of each other, so it is a search and not a formula.
    fn window(self, at_ms: u64, zone: &TimeZone) -> Option<Window> {
        let at = i64::try_from(at_ms).ok()?;
        let civil = timestamp(at_ms)?.to_zoned(zone.clone()).datetime();
        let day = days_since_monday(civil.date())?;
        let mut number = match self {
            Self::Months(count) => (i64::from(civil.year()) * 12 + i64::from(civil.month()) - 1).div_euclid(count),
            Self::Days(count) => day.div_euclid(count),
            Self::Hours(minutes) => {
                let minute = i64::from(civil.hour()) * 60 + i64::from(civil.minute());
                day * (1440 / minutes) + minute / minutes
            }
        };
        while self.boundary_ms(number, zone)? > at {
            number -= 1;
        }
        let mut end = self.boundary_ms(number + 1, zone)?;
        while end <= at {
            number += 1;
            end = self.boundary_ms(number + 1, zone)?;
        }
        let start = self.boundary_ms(number, zone)?;
        Some(Window { start_ms: u64::try_from(start).unwrap_or(0), end_ms: u64::try_from(end).ok()? })
    }

    /// When the clock first shows a boundary or more: where it is set forward over the boundary, that is then.
    fn boundary_ms(self, number: i64, zone: &TimeZone) -> Option<i64> {
        let at = match self {
            Self::Months(count) => {
                let month = number.checked_mul(count)?;
                let year = i16::try_from(month.div_euclid(12)).ok()?;
                let month = i8::try_from(month.rem_euclid(12) + 1).ok()?;
                Date::new(year, month, 1).ok()?.at(0, 0, 0, 0)
            }
            Self::Days(count) => day(number.checked_mul(count)?)?.at(0, 0, 0, 0),
            Self::Hours(minutes) => {
                let per_day = 1440 / minutes;
                let minute = number.rem_euclid(per_day) * minutes;
                let (hour, minute) = (i8::try_from(minute / 60).ok()?, i8::try_from(minute % 60).ok()?);
                day(number.div_euclid(per_day))?.at(hour, minute, 0, 0)
            }
        };
        let reached = zone.to_ambiguous_timestamp(at);
        let reached = match reached.offset() {
            AmbiguousOffset::Gap { .. } => zone.following(reached.earlier().ok()?).next()?.timestamp(),
            _ => reached.earlier().ok()?,
        };
        Some(reached.as_millisecond())
    }
}

fn timestamp(at_ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok()
}

fn days_since_monday(of: Date) -> Option<i64> {
    of.since((jiff::Unit::Day, MONDAY)).ok().map(|span| i64::from(span.get_days()))
}

fn day(number: i64) -> Option<Date> {
    MONDAY.checked_add(i32::try_from(number).ok()?.days()).ok()
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.count, self.unit.suffix())
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(|error| D::Error::custom(format_args!("'{text}' {error}")))
    }
}

/// The current window of every period in use, so that a request does no calendar arithmetic.
#[derive(Debug)]
pub struct Windows {
    zone: TimeZone,
    known: Vec<(Period, Window)>,
}

impl Windows {
    #[must_use]
    pub const fn new(zone: TimeZone) -> Self {
        Self { zone, known: Vec::new() }
    }

    #[must_use]
    pub const fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// As [`Period::window`].
    pub fn at(&mut self, period: Period, now_ms: u64) -> Window {
        if let Some((_, window)) = self.known.iter_mut().find(|(known, _)| *known == period) {
            if !window.contains(now_ms) {
                *window = period.window(now_ms, &self.zone);
            }
            return *window;
        }
        let window = period.window(now_ms, &self.zone);
        // Keys may use more periods than are worth remembering; the oldest is the one to go.
        if self.known.len() >= REMEMBERED_MAX {
            self.known.remove(0);
        }
        self.known.push((period, window));
        window
    }
}

#[cfg(test)]
mod tests;
