//! Writing JSON text into a byte buffer, field by field: a page of fifty records costs microseconds.

use crate::event::Millis;

use super::hash::mix;

/// How a GenAuth time is spelled. All three occur.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// `+0800`, as the vendor's own example has it; not RFC 3339.
    Compact,
    /// `+08:00`.
    Colon,
    /// `Z`.
    Utc,
}

/// Writes `number` in decimal.
pub fn number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes `number` with a point before its last `places` digits.
pub fn decimal(out: &mut Vec<u8>, number: Millis, places: u32) {
    let (digits, power) = (number.unsigned_abs(), 10_u64.pow(places));
    self::number(out, digits / power);
    out.push(b'.');
    padded(out, digits % power, places);
}

/// Writes the lowest `width` decimal digits of `number`.
fn padded(out: &mut Vec<u8>, number: u64, width: u32) {
    for place in (0..width).rev() {
        out.push(b'0' + (number / 10_u64.pow(place) % 10) as u8);
    }
}

/// Writes `count` hexadecimal digits that hang on `thing`; at most 32.
pub fn hex(out: &mut Vec<u8>, thing: u64, count: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let (mut bits, more) = (mix(thing, 1), mix(thing, 2));
    for place in 0..count {
        if place == 16 {
            bits = more;
        }
        out.push(DIGITS[(bits & 15) as usize]);
        bits >>= 4;
    }
}

/// Writes `text` as a JSON string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    plain_or_escaped(out, text, false);
    out.push(b'"');
}

/// Writes `text` as a JSON string that is spelled in ASCII.
pub fn ascii_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    plain_or_escaped(out, text, true);
    out.push(b'"');
}

fn plain_or_escaped(out: &mut Vec<u8>, text: &str, ascii: bool) {
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if ascii && !c.is_ascii() => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Writes `before` (a brace or comma), then `name` and a colon; `name` needs no escaping.
pub fn key_after(out: &mut Vec<u8>, before: u8, name: &str) {
    out.extend_from_slice(&[before, b'"']);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Writes a boolean.
pub fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Writes an IPv4 address in a JSON string.
pub fn ip(out: &mut Vec<u8>, address: [u8; 4]) {
    out.push(b'"');
    for (place, byte) in address.into_iter().enumerate() {
        if place > 0 {
            out.push(b'.');
        }
        number(out, u64::from(byte));
    }
    out.push(b'"');
}

/// Writes a time like `2022-09-20T08:55:00.188+0800`; whole seconds have no fraction.
pub fn time(out: &mut Vec<u8>, time: Millis, zone: Zone) {
    let shown = if zone == Zone::Utc { time } else { time + 8 * 3_600_000 };
    let (seconds, millis) = (shown.div_euclid(1000), shown.rem_euclid(1000).unsigned_abs());
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400).unsigned_abs());
    let (year, month, day) = civil(days);
    padded(out, year, 4);
    out.push(b'-');
    padded(out, month, 2);
    out.push(b'-');
    padded(out, day, 2);
    out.push(b'T');
    padded(out, second / 3600, 2);
    out.push(b':');
    padded(out, second / 60 % 60, 2);
    out.push(b':');
    padded(out, second % 60, 2);
    if millis > 0 {
        out.push(b'.');
        padded(out, millis, 3);
    }
    let zone: &[u8] = match zone {
        Zone::Compact => b"+0800",
        Zone::Colon => b"+08:00",
        Zone::Utc => b"Z",
    };
    out.extend_from_slice(zone);
}

/// Year, month and day of a day since the Unix epoch: Howard Hinnant's `civil_from_days`, for days after it.
fn civil(days: i64) -> (u64, u64, u64) {
    let shifted = days.unsigned_abs() + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_spelled_as_the_vendor_spells_them() {
        let moment = 1_663_635_300_188;
        assert_eq!(written(|out| time(out, moment, Zone::Compact)), "2022-09-20T08:55:00.188+0800");
        assert_eq!(written(|out| time(out, moment, Zone::Colon)), "2022-09-20T08:55:00.188+08:00");
        assert_eq!(written(|out| time(out, moment - 188, Zone::Utc)), "2022-09-20T00:55:00Z");
    }

    #[test]
    fn dates_agree_with_jiff() {
        for day in (0..40_000).step_by(17) {
            let moment = day * 86_400_000 + day;
            let shown = written(|out| time(out, moment, Zone::Utc));
            assert_eq!(shown.parse::<jiff::Timestamp>().unwrap().as_millisecond(), moment, "{shown}");
        }
    }

    #[test]
    fn strings_survive_both_spellings() {
        let text = "用户 \"张伟\"\t登录\\ 🔑\n";
        for spelled in [written(|out| string(out, text)), written(|out| ascii_string(out, text))] {
            assert_eq!(serde_json::from_str::<String>(&spelled).unwrap(), text);
        }
    }
}
