//! The moment of a signature as `SigV4` writes it. No clock and no calendar crate: seconds come in, and
//! `20261122T191654Z` comes out, without an allocation.

use std::fmt;

const SECONDS_PER_DAY: u64 = 86_400;
/// The last second that four digits of a year can hold, 9999-12-31T23:59:59Z.
const SECONDS_MAX: u64 = 253_402_300_799;

/// A moment, rendered once for a request: as `x-amz-date` and as the day of the credential scope.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SigningTime([u8; 16]);

impl SigningTime {
    /// From seconds since 1970 (UTC). Later than the year 9999 is taken for its end.
    #[must_use]
    pub fn from_unix_seconds(seconds: u64) -> Self {
        let seconds = seconds.min(SECONDS_MAX);
        let (year, month, day) = civil_from_days(seconds / SECONDS_PER_DAY);
        let of_day = seconds % SECONDS_PER_DAY;
        let mut text = *b"00000000T000000Z";
        for (at, width, number) in [
            (0, 4, year),
            (4, 2, month),
            (6, 2, day),
            (9, 2, of_day / 3_600),
            (11, 2, of_day / 60 % 60),
            (13, 2, of_day % 60),
        ] {
            write_decimal(&mut text[at..at + width], number);
        }
        Self(text)
    }

    /// From `YYYYMMDDTHHMMSSZ`; `None` for anything else, a 31st of June and years before 1970 included.
    #[must_use]
    pub fn parse(amz_date: &str) -> Option<Self> {
        let text: [u8; 16] = amz_date.as_bytes().try_into().ok()?;
        let time = Self(text);
        // Written again it is the same, or it was none.
        (Self::from_unix_seconds(time.unix_seconds()?) == time).then_some(time)
    }

    /// Seconds since 1970.
    fn unix_seconds(&self) -> Option<u64> {
        let number = |from: usize, to: usize| {
            let digits = self.0.get(from..to)?;
            digits
                .iter()
                .try_fold(0_u64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
        };
        let days = days_from_civil(number(0, 4)?, number(4, 6)?, number(6, 8)?)?;
        let of_day = number(9, 11)? * 3_600 + number(11, 13)? * 60 + number(13, 15)?;
        Some(days * SECONDS_PER_DAY + of_day)
    }

    /// How many seconds this is later than `other`; negative when it is earlier.
    #[must_use]
    pub fn seconds_after(&self, other: &Self) -> i64 {
        let seconds = |time: &Self| time.unix_seconds().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0);
        seconds(self) - seconds(other)
    }

    /// `YYYYMMDDTHHMMSSZ`, the value of `x-amz-date`.
    #[must_use]
    pub fn amz_date(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// `YYYYMMDD`, the day of the credential scope.
    #[must_use]
    pub fn date(&self) -> &str {
        std::str::from_utf8(&self.0[..8]).unwrap_or_default()
    }
}

impl fmt::Debug for SigningTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.amz_date())
    }
}

/// Fills `digits` with the low decimal digits of `number`, zero-padded.
fn write_decimal(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789"[usize::try_from(number % 10).unwrap_or(0)];
        number /= 10;
    }
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months count from March, so that the leap day is the last of the year.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// The inverse, of the same paper. `None` before 1970 and for months that are none; a day that the month has not comes
/// out as one of the next month.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let year_of_era = year % 400;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (year / 400 * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::SigningTime;

    #[test]
    fn only_moments_that_exist_are_read() {
        for text in ["19700101T000000Z", "20000229T235959Z", "20261122T191654Z", "99991231T235959Z"] {
            assert_eq!(SigningTime::parse(text).unwrap().amz_date(), text);
        }
        for text in [
            "",
            "20261122",
            "20261122T191654",
            "20261122T191654z",
            "20261122 191654Z",
            "20261322T191654Z",
            "20261100T191654Z",
            "20260631T000000Z",
            "20230229T000000Z",
            "20261122T241654Z",
            "20261122T196054Z",
            "20261122T191660Z",
            "19691231T235959Z",
            "2026112aT191654Z",
            "+0261122T191654Z",
            "20261122T191654Z ",
            "２０２６１１",
        ] {
            assert_eq!(SigningTime::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_is_read_as_it_was_written() {
        for day in 0..150_000 {
            let time = SigningTime::from_unix_seconds(day * 86_400 + 3_661);
            assert_eq!(SigningTime::parse(time.amz_date()), Some(time));
            assert_eq!(
                time.seconds_after(&SigningTime::from_unix_seconds(0)),
                i64::try_from(day * 86_400 + 3_661).unwrap()
            );
        }
    }

    #[test]
    fn seconds_are_written_as_aws_writes_them() {
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_440_938_160, "20150830T123600Z"),
            (1_709_251_199, "20240229T235959Z"),
            (1_795_375_014, "20261122T191654Z"),
            (4_107_542_400, "21000301T000000Z"),
            (253_402_300_799, "99991231T235959Z"),
            (u64::MAX, "99991231T235959Z"),
        ] {
            let time = SigningTime::from_unix_seconds(seconds);
            assert_eq!(time.amz_date(), expected, "{seconds}");
            assert_eq!(time.date(), &expected[..8]);
        }
    }
}
