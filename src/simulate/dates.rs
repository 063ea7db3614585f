//! What time answers say it is: their `Date`, wrong on request, while the servers' clock itself stays right. And in which
//! form records write their times.

use jiff::civil::date;
use jiff::tz::Offset;

use crate::event::Millis;

use super::clock::millis;
use super::hash::{happens, mix, unit};
use super::options::Options;

/// The `Date` of an answer at `now`, in a simulator that has run for `age`, after `before` answers of the same source
/// whose `Date` was off; `hash` are bits of this answer alone. `None` if it is right.
#[must_use]
pub fn wrong(options: &Options, now: Millis, age: Millis, before: u64, hash: u64) -> Option<Millis> {
    let begun = age >= millis(options.date_after);
    let over = options.date_for.is_some_and(|lasts| age >= millis(options.date_after) + millis(lasts));
    let spent = options.date_answers > 0 && before >= options.date_answers;
    let is_off = options.date_off != 0
        || !options.date_random.is_zero()
        || options.date_year.is_some()
        || options.date_unreadable;
    if !is_off || !begun || over || spent || !happens(mix(hash, 1), options.date_share) {
        return None;
    }
    let year = options.date_year.and_then(|year| {
        let local = date(year, 12, 30).at(21, 0, 0, 0);
        Offset::UTC.to_timestamp(local).ok().map(jiff::Timestamp::as_millisecond)
    });
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "at most a century")]
    let random = (millis(options.date_random) as f64 * (2.0 * unit(mix(hash, 2)) - 1.0)) as Millis;
    Some(year.unwrap_or(now).saturating_add(options.date_off).saturating_add(random).max(0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Millis = 1_700_000_000_000;

    #[test]
    fn a_date_is_off_as_long_and_as_often_as_was_asked_for() {
        let options = Options {
            date_off: 60_000,
            date_after: Duration::from_secs(10),
            date_for: Some(Duration::from_secs(5)),
            date_answers: 3,
            ..Options::default()
        };
        let at = |age, before| wrong(&options, NOW, age, before, 7);
        assert_eq!([at(9_999, 0), at(10_000, 0), at(14_999, 2)], [None, Some(NOW + 60_000), Some(NOW + 60_000)]);
        assert_eq!([at(15_000, 0), at(10_000, 3)], [None, None]);
        assert_eq!(wrong(&Options::default(), NOW, 0, 0, 7), None, "unless it was asked for");
    }

    #[test]
    fn nodes_hours_and_years() {
        let two = Options { date_off: -30_000, date_share: 0.5, ..Options::default() };
        let off = (0..1000).filter(|hash| wrong(&two, NOW, 0, 0, *hash).is_some()).count();
        assert!((400..600).contains(&off), "{off}");
        let random = Options { date_random: Duration::from_secs(3600), ..Options::default() };
        let dates: Vec<Millis> = (0..1000).filter_map(|hash| wrong(&random, NOW, 0, 0, hash)).collect();
        let (low, high) = (dates.iter().min().unwrap() - NOW, dates.iter().max().unwrap() - NOW);
        assert!((-3_600_000..-3_500_000).contains(&low) && (3_500_000..=3_600_000).contains(&high), "{low} {high}");
        let last = Options { date_year: Some(9999), ..Options::default() };
        assert_eq!(wrong(&last, NOW, 0, 0, 7), Some(253_402_203_600_000));
    }
}
