//! Integer money. A cost is whole nano-dollars, a rate is nano-dollars per million units, and no float ever holds
//! either: `$0.00875` per million tokens is exactly 8,750,000.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Units in which a [`Rate`] is quoted.
pub const UNITS_PER_RATE: u128 = 1_000_000;

const NANO_PER_USD: u64 = 1_000_000_000;
/// The most bytes of an amount as text: 2⁶⁴ nano-dollars have eleven digits before the point and nine behind it.
const USD_BYTES_MAX: usize = 21;

/// An amount of money in nano-dollars (10⁻⁹ USD). Never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanoUsd(pub u64);

impl NanoUsd {
    pub const ZERO: Self = Self(0);

    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// `self - other`, zero where `other` is larger.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Reads dollars as written, `100`, `0.05`, `1e2`, exactly and without a float.
    ///
    /// # Errors
    /// When the text is no decimal number, is negative, finer than a nano-dollar, or over 2⁶⁴ of them.
    pub fn from_usd(text: &str) -> Result<Self, RateError> {
        decimal_times_power_of_ten(text, 9).map(Self)
    }

    /// Dollars without needless zeros, as a JSON number: `0.01287`, `40`, `0`.
    #[must_use]
    pub fn to_usd_number(self) -> String {
        let mut text = String::with_capacity(USD_BYTES_MAX);
        text.push_str(itoa::Buffer::new().format(self.whole_usd()));
        let mut digits = itoa::Buffer::new();
        let fraction = self.usd_fraction(&mut digits).trim_end_matches('0');
        if !fraction.is_empty() {
            text.push('.');
            text.push_str(fraction);
        }
        text
    }

    const fn whole_usd(self) -> u64 {
        self.0 / NANO_PER_USD
    }

    /// The nine digits behind the point.
    fn usd_fraction(self, digits: &mut itoa::Buffer) -> &str {
        // With a dollar more there are leading zeros too.
        digits.format(NANO_PER_USD + self.0 % NANO_PER_USD).get(1..).unwrap_or_default()
    }
}

/// Dollars with all nine decimals: `0.012870000`. Not by `fmt`'s machinery, which takes four times as long: every answer
/// has several amounts.
impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(itoa::Buffer::new().format(self.whole_usd()))?;
        f.write_str(".")?;
        f.write_str(self.usd_fraction(&mut itoa::Buffer::new()))
    }
}

/// A price in nano-dollars per million units (tokens, images, queries, milliseconds …).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Rate(pub u64);

/// Why a text is not a rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateError {
    NotANumber,
    Negative,
    /// Finer than a nano-dollar per million units.
    TooFine,
    TooLarge,
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotANumber => "is not a decimal number of dollars, such as 0.000003 or 3e-06",
            Self::Negative => "is negative",
            Self::TooFine => "is finer than a nano-dollar per million units",
            Self::TooLarge => "is too large",
        })
    }
}

impl std::error::Error for RateError {}

impl Rate {
    /// Reads dollars **per unit** as written, `0.000003`, `3e-06`, exactly and without a float.
    ///
    /// # Errors
    /// When the text is no decimal number, is negative, finer than a nano-dollar per million units, or over 2⁶⁴.
    pub fn from_usd_per_unit(text: &str) -> Result<Self, RateError> {
        // A dollar per unit is 10⁹ nano-dollars × 10⁶ units.
        decimal_times_power_of_ten(text, 15).map(Self)
    }

    /// Reads dollars **per million units** as written: `3`, `0.30`.
    ///
    /// # Errors
    /// As [`Self::from_usd_per_unit`].
    pub fn from_usd_per_million(text: &str) -> Result<Self, RateError> {
        decimal_times_power_of_ten(text, 9).map(Self)
    }

    /// The exact price of `units` in millionths of a nano-dollar; sum these and round once with [`round_up`].
    #[must_use]
    pub fn times(self, units: u64) -> u128 {
        u128::from(self.0) * u128::from(units)
    }
}

/// Rounds a sum of [`Rate::times`] up to whole nano-dollars; a sum over 2⁶⁴ nano-dollars saturates.
#[must_use]
pub fn round_up(millionths: u128) -> NanoUsd {
    NanoUsd(u64::try_from(millionths.div_ceil(UNITS_PER_RATE)).unwrap_or(u64::MAX))
}

/// `text` × 10^`power` as an integer, exact or an error.
fn decimal_times_power_of_ten(text: &str, power: i32) -> Result<u64, RateError> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err(RateError::Negative);
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| RateError::NotANumber)?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RateError::NotANumber);
    }
    let fraction_digits = i32::try_from(fraction.len()).map_err(|_| RateError::TooFine)?;
    let shift =
        exponent.checked_add(power).and_then(|sum| sum.checked_sub(fraction_digits)).ok_or(RateError::TooLarge)?;
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    let value: u128 = significant.parse().map_err(|_| RateError::TooLarge)?;
    let scaled = if shift >= 0 {
        10u128
            .checked_pow(shift.unsigned_abs())
            .and_then(|factor| value.checked_mul(factor))
            .ok_or(RateError::TooLarge)?
    } else {
        let divisor = 10u128.checked_pow(shift.unsigned_abs()).ok_or(RateError::TooFine)?;
        if !value.is_multiple_of(divisor) {
            return Err(RateError::TooFine);
        }
        value / divisor
    };
    u64::try_from(scaled).map_err(|_| RateError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_exactly() {
        for (text, expected) in [
            ("3e-06", Ok(3_000_000_000)),
            ("0.000003", Ok(3_000_000_000)),
            ("8.75E-9", Ok(8_750_000)),
            ("0", Ok(0)),
            ("0.0", Ok(0)),
            (".5", Ok(500_000_000_000_000)),
            ("1e-15", Ok(1)),
            ("1e-16", Err(RateError::TooFine)),
            ("-1", Err(RateError::Negative)),
            ("", Err(RateError::NotANumber)),
            ("NaN", Err(RateError::NotANumber)),
            ("1e999999999999", Err(RateError::NotANumber)),
            ("1e99", Err(RateError::TooLarge)),
            ("100000", Err(RateError::TooLarge)),
        ] {
            assert_eq!(Rate::from_usd_per_unit(text).map(|rate| rate.0), expected, "{text}");
        }
        assert_eq!(Rate::from_usd_per_million("0.00875"), Ok(Rate(8_750_000)));
    }

    #[test]
    fn a_cost_is_rounded_up_once() {
        let rate = Rate(8_750_000);
        assert_eq!(round_up(rate.times(1)), NanoUsd(9));
        assert_eq!(round_up(rate.times(1) + rate.times(1)), NanoUsd(18));
        assert_eq!(round_up(rate.times(2) + rate.times(2)), NanoUsd(35));
        assert_eq!(NanoUsd(12_870_000).to_string(), "0.012870000");
    }

    #[test]
    fn amounts_are_shown_in_dollars() {
        for (amount, number, all) in [
            (0, "0", "0.000000000"),
            (1, "0.000000001", "0.000000001"),
            (10, "0.00000001", "0.000000010"),
            (12_870_000, "0.01287", "0.012870000"),
            (40_000_000_000, "40", "40.000000000"),
            (1_999_999_999, "1.999999999", "1.999999999"),
            (u64::MAX, "18446744073.709551615", "18446744073.709551615"),
        ] {
            assert_eq!((NanoUsd(amount).to_usd_number(), NanoUsd(amount).to_string()), (number.into(), all.into()));
            assert!(all.len() <= USD_BYTES_MAX);
        }
    }
}
