//! Durations and sizes as people write them: a whole number and a unit.
//!
//! Zero, negative numbers, fractions and what does not fit are refused: a limit of nothing is a mistake, and
//! "no limit" does not exist here.

use std::time::Duration;
use thiserror::Error;

/// Units of time, in milliseconds, the largest first, so that formatting takes the first that divides.
const TIMES: [(&str, u64); 5] =
    [("d", 24 * 60 * 60 * 1000), ("h", 60 * 60 * 1000), ("m", 60 * 1000), ("s", 1000), ("ms", 1)];
/// Units of size, in bytes, the largest first.
const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
/// The longest duration, in milliseconds: a year. Longer ones are typing errors, and a point in time this far
/// away can always be computed.
const TIME_MAX: u64 = 366 * 24 * 60 * 60 * 1000;
/// The largest size, in bytes: what a file offset can hold.
const SIZE_MAX: u64 = i64::MAX.unsigned_abs();

/// Why a text is no duration or size.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UnitError {
    /// No number, no unit, or another unit.
    #[error("{text:?} is not {wanted}")]
    Malformed {
        /// What was written.
        text: String,
        /// What may be written.
        wanted: &'static str,
    },
    /// Nothing.
    #[error("{0:?} is zero: a limit must be greater")]
    Zero(String),
    /// Too much.
    #[error("{text:?} is more than the {most} that are possible")]
    TooLarge {
        /// What was written.
        text: String,
        /// The most.
        most: &'static str,
    },
}

/// What a duration looks like.
pub const DURATION_FORM: &str = "a duration such as \"250ms\", \"10s\", \"5m\", \"1h\" or \"7d\"";
/// What a size looks like.
pub const SIZE_FORM: &str = "a size such as \"512B\", \"64KiB\", \"16MiB\", \"2GiB\" or \"1TiB\"";
/// What a rate looks like.
pub const RATE_FORM: &str = "a rate such as \"1KiB/s\"";

/// Reads a duration: a whole number with `ms`, `s`, `m`, `h` or `d`; from 1 ms to 366 days.
///
/// # Errors
/// When the text is something else.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, &TIMES, DURATION_FORM, (TIME_MAX, "366 days")).map(Duration::from_millis)
}

/// Reads a size in bytes: a whole number with `B`, `KiB`, `MiB`, `GiB` or `TiB`.
///
/// # Errors
/// When the text is something else.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZES, SIZE_FORM, (SIZE_MAX, "8 EiB"))
}

/// Reads a rate in bytes per second: a size followed by `/s`.
///
/// # Errors
/// When the text is something else.
pub fn parse_rate(text: &str) -> Result<u64, UnitError> {
    let malformed = || UnitError::Malformed { text: text.to_owned(), wanted: RATE_FORM };
    let size = text.strip_suffix("/s").ok_or_else(malformed)?;
    parse(size, &SIZES, RATE_FORM, (SIZE_MAX, "8 EiB/s"))
}

/// Writes a duration in the largest unit that holds it whole; what is below a millisecond is left out.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    format(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &TIMES)
}

/// Writes a size in the largest unit that holds it whole.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    format(bytes, &SIZES)
}

/// Writes a rate in the largest unit that holds it whole.
#[must_use]
pub fn format_rate(bytes_per_second: u64) -> String {
    format(bytes_per_second, &SIZES) + "/s"
}

fn parse(
    text: &str,
    units: &[(&str, u64)],
    wanted: &'static str,
    (max, most): (u64, &'static str),
) -> Result<u64, UnitError> {
    let malformed = || UnitError::Malformed { text: text.to_owned(), wanted };
    let too_large = || UnitError::TooLarge { text: text.to_owned(), most };
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).ok_or_else(malformed)?;
    let (number, unit) = text.split_at(end);
    let factor = units.iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?.1;
    if number.is_empty() {
        return Err(malformed());
    }
    // Digits alone fail to parse only when they do not fit.
    let number: u64 = number.parse().map_err(|_| too_large())?;
    match number.checked_mul(factor) {
        Some(0) => Err(UnitError::Zero(text.to_owned())),
        Some(value) if value <= max => Ok(value),
        Some(_) | None => Err(too_large()),
    }
}

fn format(value: u64, units: &[(&str, u64)]) -> String {
    units
        .iter()
        .find(|(_, factor)| value != 0 && value.is_multiple_of(*factor))
        .or(units.last())
        .map_or_else(String::new, |(name, factor)| format!("{}{name}", value / factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_and_a_unit_are_read() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_rate("1KiB/s"), Ok(1024));
    }

    #[test]
    fn zero_negative_fraction_overflow_and_nonsense_are_refused() {
        for text in
            ["0s", "00d", "-5s", "+5s", "1.5h", "5", "s", "", "5 s", "5S", "5sec", "1e3s", "5s ", "٣s"]
        {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        for text in ["0B", "-1KiB", "1KB", "1kib", "10", "GiB", "1GiB/s", "9000000000GiB"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
        for text in ["1KiB", "0B/s", "1KiB/m", "/s"] {
            assert!(parse_rate(text).is_err(), "{text:?}");
        }
        assert!(matches!(parse_duration("367d"), Err(UnitError::TooLarge { .. })));
        assert!(matches!(parse_duration("99999999999999999999999s"), Err(UnitError::TooLarge { .. })));
        assert!(matches!(parse_duration("18446744073709551615d"), Err(UnitError::TooLarge { .. })));
        assert!(matches!(parse_size("16777216TiB"), Err(UnitError::TooLarge { .. })));
    }

    #[test]
    fn the_largest_whole_unit_is_written() {
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
        assert_eq!(format_duration(Duration::from_secs(1800)), "30m");
        assert_eq!(format_size(1536), "1536B");
        assert_eq!(format_size(16 << 20), "16MiB");
        assert_eq!(format_size(0), "0B");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms in 1..=TIME_MAX, bytes in 1..=SIZE_MAX) {
            let time = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(time)), Ok(time));
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
            prop_assert_eq!(parse_rate(&format_rate(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_a_value_or_a_sentence(text in "\\PC{0,12}|[0-9]{0,25}[a-zA-Z/]{0,4}") {
            let _ = (parse_duration(&text), parse_size(&text), parse_rate(&text));
        }
    }
}
