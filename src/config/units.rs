//! How a person writes a duration, a size and a place in time, and what each means.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Start;

/// Text that is not what it should be. Holds what was expected and never the text itself: it might be a secret in
/// the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct UnitError(pub(super) &'static str);

pub(super) const DURATION: UnitError = UnitError("a duration such as `500ms`, `15s`, `1h30m` or `30d`");
const LONG: UnitError = UnitError("a duration of at most a hundred years, `36525d`");
pub(super) const SIZE: UnitError = UnitError("a size such as `512KiB` or `16MiB`");
pub(super) const START: UnitError = UnitError("`now`, an age such as `30d`, or a time such as `2026-01-31T00:00:00Z`");

/// Falling, as they are written.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `500ms`, `15s`, `5m`, `6h`, `30d`, or several of them in falling order, each once: `1h30m`.
///
/// A unit is always needed, but for `0`. The longest is a hundred years, so that no sum with a time overflows.
///
/// # Errors
/// When the text is no such duration.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    const LONGEST: u64 = 36_525 * 86_400_000;
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|&digits| digits > 0).ok_or(DURATION)?;
        let (count, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let (_, millis) = *UNITS.iter().find(|(name, _)| *name == unit).ok_or(DURATION)?;
        if millis >= last_unit {
            return Err(DURATION);
        }
        last_unit = millis;
        let count: u64 = count.parse().map_err(|_| LONG)?;
        total = count.checked_mul(millis).and_then(|part| total.checked_add(part)).ok_or(LONG)?;
        rest = after;
    }
    if text.is_empty() {
        return Err(DURATION);
    }
    if total > LONGEST {
        return Err(LONG);
    }
    Ok(Duration::from_millis(total))
}

/// Writes a duration so that [`duration`] reads it back; what is below a millisecond is dropped.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, millis) in UNITS {
        if rest >= millis {
            text += &format!("{}{unit}", rest / millis);
            rest %= millis;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A time that passed, as it is told: in whole seconds, but for what is less than one.
#[must_use]
pub fn passed_text(time: Duration) -> String {
    let brief = time < Duration::from_secs(1);
    duration_text(if brief { time } else { Duration::from_secs(time.as_secs()) })
}

/// Reads `1024`, `64KiB`, `16MiB`, `1GiB` as a number of bytes.
///
/// # Errors
/// When the text is no such size. `KB` and `MB` are not: they mean 1000 to some and 1024 to others.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let scale = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(SIZE),
    };
    count.parse::<u64>().ok().and_then(|count| count.checked_mul(scale)).ok_or(SIZE)
}

/// Writes a size so that [`size`] reads it back, in the largest unit that divides it.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    for (unit, scale) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(scale) {
            return format!("{}{unit}", bytes / scale);
        }
    }
    bytes.to_string()
}

impl FromStr for Start {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text == "now" {
            return Ok(Self::Now);
        }
        match duration(text) {
            Ok(age) => return Ok(Self::Age(age)),
            Err(LONG) => return Err(LONG),
            Err(_) => {}
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| START)?;
        Ok(Self::At(time.as_millisecond()))
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("now"),
            Self::Age(age) => f.write_str(&duration_text(*age)),
            Self::At(time) => jiff::Timestamp::from_millisecond(*time).map_err(|_| fmt::Error)?.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("15s", 15_000),
            ("5m", 300_000),
            ("6h", 21_600_000),
            ("30d", 2_592_000_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(duration(&duration_text(Duration::from_millis(millis))), duration(text), "{text}");
        }
        for text in ["", "5", "s", "5x", "-5s", "+5s", "1.5h", "5 s", " 5s", "30m1h", "1h1h", "1M", "5s "] {
            assert_eq!(duration(text), Err(DURATION), "{text:?}");
        }
        for text in ["99999999999999999999s", "9999999999999999999d", "40000d"] {
            assert_eq!((duration(text), text.parse()), (Err(LONG), Err::<Start, _>(LONG)), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("1024", 1024), ("7B", 7), ("64KiB", 65_536), ("16MiB", 16 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(size(&size_text(bytes)), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "1MB", "1 MiB", "-1", "1.5MiB", "18446744073709551615KiB"] {
            assert_eq!(size(text), Err(SIZE), "{text:?}");
        }
    }

    #[test]
    fn starts() {
        assert_eq!("now".parse(), Ok(Start::Now));
        assert_eq!("30d".parse(), Ok(Start::Age(Duration::from_secs(2_592_000))));
        assert_eq!("1970-01-01T00:00:01.5Z".parse(), Ok(Start::At(1_500)));
        assert_eq!("1970-01-01T08:00:00+08:00".parse(), Ok(Start::At(0)));
        for start in [Start::Now, Start::Age(Duration::from_secs(5_400)), Start::At(1_500)] {
            assert_eq!(start.to_string().parse(), Ok(start));
        }
        for text in ["", "yesterday", "2026-01-31", "2026-01-31T00:00:00", "1700000000"] {
            assert_eq!(text.parse::<Start>(), Err(START), "{text:?}");
        }
    }
}
