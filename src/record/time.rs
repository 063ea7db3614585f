//! Times as the sources write them, and as trailcast does.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::event::Millis;

/// An instant, and how far from UTC its writer's clock was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The instant; finer fractions are cut off.
    pub instant: Millis,
    /// Minutes east of UTC.
    pub offset: i32,
}

/// Reads an ISO 8601 date, time and offset. GenAuth writes the offset without a colon
/// (`2022-09-20T08:55:00.188+0800`), which RFC 3339 parsers refuse; `Z` and `+08:00` are read too, and a fraction
/// of any length, or none. A leap second is the second before it.
#[must_use]
pub fn parse(text: &str) -> Option<Stamp> {
    let (local, rest) = text.as_bytes().split_at_checked(19)?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T' | b't' | b' ', h1, h2, b':', n1, n2, b':', s1, s2] = local
    else {
        return None;
    };
    let second = two(*s1, *s2)?;
    let local = DateTime::new(
        i16::from(two(*y1, *y2)?) * 100 + i16::from(two(*y3, *y4)?),
        two(*m1, *m2)?,
        two(*d1, *d2)?,
        two(*h1, *h2)?,
        two(*n1, *n2)?,
        if second == 60 { 59 } else { second },
        0,
    )
    .ok()?;
    let (millis, rest) = fraction(rest)?;
    let offset = offset(rest)?;
    let instant = Offset::UTC.to_timestamp(local).ok()?.as_millisecond() + millis - i64::from(offset) * 60_000;
    // What cannot be written again is not a time.
    Timestamp::from_millisecond(instant).ok()?;
    Some(Stamp { instant, offset })
}

/// Reads a time that is written as a number, whatever the sources document: Unix seconds, or milli-, micro- or
/// nanoseconds, told apart by their size (seconds reach to the year 5138, milliseconds begin in 1973), whole or not, with
/// an exponent or without. What is finer than a millisecond is cut off.
#[must_use]
pub fn from_number(text: &str) -> Option<Millis> {
    /// More digits than any clock has.
    const MOST: usize = 30;
    /// A small number that is not even whole is no time.
    const BROKEN_FROM: i128 = 100_000_000;
    if let Ok(number) = text.parse::<u32>() {
        // As documented, and nearly always so.
        return Some(Millis::from(number) * 1000);
    }
    let (text, exponent) = match text.split_once(['e', 'E']) {
        Some((text, exponent)) => (text, exponent.parse::<i32>().ok().filter(|exponent| exponent.abs() <= 30)?),
        None => (text, 0),
    };
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || fraction.is_some_and(|part| !are_digits(part)) {
        return None;
    }
    // Zeros at the end say nothing, and there may be many.
    let fraction = fraction.unwrap_or_default().trim_end_matches('0');
    if whole.len() + fraction.len() > MOST {
        return None;
    }
    let number: i128 = format!("{whole}{fraction}").parse().ok()?;
    let exponent = exponent - i32::try_from(fraction.len()).ok()?;
    let scaled = |exponent: i32| match 10_i128.checked_pow(exponent.unsigned_abs()) {
        Some(power) if exponent < 0 => Some(number.div_euclid(power)),
        Some(power) => number.checked_mul(power),
        None => None,
    };
    let whole = scaled(exponent)?;
    let is_whole = exponent >= 0 || whole.checked_mul(10_i128.checked_pow(exponent.unsigned_abs())?) == Some(number);
    if !is_whole && whole < BROKEN_FROM {
        return None;
    }
    // Seconds, milliseconds, microseconds or nanoseconds, whichever is a time of these centuries.
    let units = [(100_000_000_000, 3), (100_000_000_000_000, 0), (100_000_000_000_000_000, -3)];
    let unit = units.iter().find(|(end, _)| whole < *end).map_or(-6, |(_, unit)| *unit);
    let millis = scaled(exponent + unit)?;
    let millis = Millis::try_from(if negative { -millis } else { millis }).ok()?;
    // What cannot be written again is not a time.
    Timestamp::from_millisecond(millis).ok().map(|_| millis)
}

/// Two decimal digits.
fn two(tens: u8, ones: u8) -> Option<i8> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| byte.wrapping_sub(b'0').cast_signed());
    Some(digit(tens)? * 10 + digit(ones)?)
}

/// Splits a leading `.123…` off, as whole milliseconds.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.', rest @ ..] = rest else { return Some((0, rest)) };
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = rest.split_at(length);
    let millis = [100, 10, 1].iter().zip(digits).map(|(unit, digit)| unit * i64::from(digit - b'0')).sum();
    (length > 0).then_some((millis, rest))
}

/// `Z`, `+0800`, `+08:00` or `+08`, in minutes.
fn offset(text: &[u8]) -> Option<i32> {
    let (sign, hours, minutes) = match text {
        [b'Z' | b'z'] => return Some(0),
        [sign, h1, h2] => (sign, two(*h1, *h2)?, 0),
        [sign, h1, h2, m1, m2] | [sign, h1, h2, b':', m1, m2] => (sign, two(*h1, *h2)?, two(*m1, *m2)?),
        _ => return None,
    };
    let minutes = (hours <= 23 && minutes <= 59).then_some(i32::from(hours) * 60 + i32::from(minutes))?;
    match sign {
        b'+' => Some(minutes),
        b'-' => Some(-minutes),
        _ => None,
    }
}

/// Shows an instant as RFC 3339 in UTC with milliseconds, `2022-09-20T00:55:00.188Z`: always 24 bytes for the years
/// 0 to 9999, so that the texts sort as the times do. An instant beyond them is shown as the nearest one within.
#[derive(Debug, Clone, Copy)]
pub struct Rfc3339(pub Millis);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Year 0 to the last whole day that jiff can hold (in 9999), in milliseconds.
        let instant = self.0.clamp(-62_167_219_200_000, 253_402_207_199_999);
        let time = Timestamp::from_millisecond(instant).map_err(|_| fmt::Error)?;
        let time = Offset::UTC.to_datetime(time);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |end: usize, mut number: u16| {
            let mut at = end;
            while number > 0 {
                at -= 1;
                text[at] = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(4, time.year().unsigned_abs());
        put(7, time.month().unsigned_abs().into());
        put(10, time.day().unsigned_abs().into());
        put(13, time.hour().unsigned_abs().into());
        put(16, time.minute().unsigned_abs().into());
        put(19, time.second().unsigned_abs().into());
        put(23, time.millisecond().unsigned_abs());
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl serde::Serialize for Rfc3339 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_documented_and_tolerated_shape_is_the_same_instant() {
        let instant = 1_663_635_300_188;
        for (text, offset) in [
            ("2022-09-20T08:55:00.188+0800", 480),
            ("2022-09-20T08:55:00.188+08:00", 480),
            ("2022-09-20T08:55:00.1889999999999999+08", 480),
            ("2022-09-20 00:55:00.188Z", 0),
            ("2022-09-20t00:55:00.188z", 0),
            ("2022-09-19T21:25:00.188-0330", -210),
        ] {
            assert_eq!(parse(text), Some(Stamp { instant, offset }), "{text}");
        }
        assert_eq!(parse("2022-09-20T08:55:00+0800").map(|stamp| stamp.instant), Some(1_663_635_300_000));
        assert_eq!(parse("2022-09-20T08:55:00.1+0800").map(|stamp| stamp.instant), Some(1_663_635_300_100));
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in [
            "",
            "2022-09-20",
            "2022-09-20T08:55:00",
            "2022-09-20T08:55:00.+0800",
            "2022-09-20T08:55:00.188",
            "2022-09-20T08:55:00.188+2400",
            "2022-09-20T08:55:00.188+0860",
            "2022-09-20T08:55:00.188*0800",
            "2022-09-20T08:55:00.188+08:0",
            "2022-09-20T08:55:00.188Zulu",
            "2022-02-29T08:55:00Z",
            "1900-02-29T08:55:00Z",
            "2022-13-01T08:55:00Z",
            "2022-00-01T08:55:00Z",
            "2022-04-31T08:55:00Z",
            "2022-04-30T24:00:00Z",
            "2022-04-30T23:60:00Z",
            "2022-04-30T23:59:61Z",
            "+022-04-30T23:59:00Z",
            "9999-12-31T23:59:59-2300",
            "２０２２-04-30T23:59:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(parse("2000-02-29T08:55:00Z").is_some(), "2000 was a leap year");
    }

    #[test]
    fn a_number_is_a_time_by_its_size() {
        for (text, time) in [
            ("100000000000", 100_000_000_000),
            ("100000000000000", 100_000_000_000),
            ("100000000000000000", 100_000_000_000),
            ("99999999999", 99_999_999_999_000),
            ("-1663635300", -1_663_635_300_000),
            ("1e3", 1_000_000),
            ("10e-1", 1000),
            ("100000000.5", 100_000_000_500),
            ("000000000000000001663635300188", 1_663_635_300_188),
        ] {
            assert_eq!(from_number(text), Some(time), "{text}");
        }
        let too_long = "0000000000000000001663635300188";
        for text in [too_long, "99999999.5", ".5e12", "+5.5e11", "-", "5.e11", "5.x", "5.5e31"] {
            assert_eq!(from_number(text), None, "{text}");
        }
    }

    #[test]
    fn instants_are_shown_in_utc_and_never_fail() {
        assert_eq!(Rfc3339(1_663_635_300_188).to_string(), "2022-09-20T00:55:00.188Z");
        assert_eq!(Rfc3339(-1).to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!(Rfc3339(i64::MIN).to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(Rfc3339(i64::MAX).to_string(), "9999-12-30T21:59:59.999Z");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn reads_what_jiff_reads(
            (year, month, day) in (0..=9999, 0..=13, 0..=32),
            (hour, minute, second) in (0..=24, 0..=60, 0..=61),
            fraction in prop_oneof![Just(String::new()), "\\.[0-9]{1,9}"],
            zone in prop_oneof![Just("Z".to_owned()), "[+-]([01][0-9]|2[0-3]):[0-6][0-9]"],
        ) {
            let local = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}");
            let instant = |zone: &str| parse(&format!("{local}{zone}")).map(|stamp| i128::from(stamp.instant));
            let theirs = format!("{local}{zone}").parse::<Timestamp>().ok();
            // jiff holds nanoseconds; what is finer than a millisecond is cut off here.
            let theirs = theirs.map(|time| time.as_nanosecond().div_euclid(1_000_000));
            prop_assert_eq!(instant(&zone), theirs);
            prop_assert_eq!(instant(&zone.replace(':', "")), theirs, "without the colon");
        }

        #[test]
        fn reads_what_it_writes(instant in -62_167_219_200_000_i64..253_402_207_199_999) {
            let text = Rfc3339(instant).to_string();
            prop_assert_eq!(text.len(), 24);
            prop_assert_eq!(parse(&text), Some(Stamp { instant, offset: 0 }));
            let jiff = text.parse::<Timestamp>().expect("it is RFC 3339");
            prop_assert_eq!(jiff.as_millisecond(), instant);
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}", seconds: i64, instant: i64) {
            let _ = (parse(&text), from_number(&text), from_number(&seconds.to_string()));
            let _ = Rfc3339(instant).to_string();
        }
    }
}
