//! What is simulated: rates, shares and faults. Every part of it can also be typed after `trailcast simulate`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::event::Millis;

use super::clock::millis;
use super::lies::Lie;

/// What is simulated. Shares are probabilities from 0 to 1.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Address to serve on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,

    /// What everything is drawn from: the same seed and rate give the same records at the same times
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,

    /// Records a second of each source, in the past and as time goes on
    #[arg(long, value_name = "PER_SECOND", default_value_t = 20.0, value_parser = rate, help_heading = "History")]
    pub rate: f64,

    /// Where the history begins: an age such as 90s, 6h or 30d, or a time such as 2026-01-31T00:00:00Z; 1h ago when
    /// nothing is said
    #[arg(long, value_name = "AGE|TIME", value_parser = start, help_heading = "History")]
    pub start: Option<Start>,

    /// End the history after so many records of each source. Without --start it ends 1024 records before now (51 s at the
    /// default rate), and nothing arrives
    #[arg(long, value_name = "COUNT", help_heading = "History")]
    pub events: Option<u64>,

    /// Put so many records into one clock unit, once in about 2048 records; at most 1024, 0 for never
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "History")]
    pub burst: u64,

    /// Share of records that have twins: two to four records that are equal in all that identifies them
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "History")]
    pub twin_share: f64,

    /// Share of records that the API shows late
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "History")]
    pub late_share: f64,

    /// The longest that a late record is late
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, help_heading = "History")]
    pub late_max: Duration,

    /// Share of records that are not written as documented: no object, wrong types, no time, or a garbled one
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "History")]
    pub odd_share: f64,

    /// Share of records that are 64 KiB larger than others, by a member that is not documented
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "History")]
    pub large_share: f64,

    /// Share of readings in which what the API looks up afresh (names, login counts, places) has changed
    #[arg(long, value_name = "SHARE", default_value_t = 0.3, value_parser = share, help_heading = "Pages")]
    pub volatile_share: f64,

    /// In which order pages list; with newest, records that arrive move all others to later pages
    #[arg(long, value_enum, default_value_t = Order::Oldest, help_heading = "Pages")]
    pub order: Order,

    /// List records of equal time in another order at each request
    #[arg(long, help_heading = "Pages")]
    pub unstable: bool,

    /// Leave out the records whose time equals a bound of the request
    #[arg(long, help_heading = "Pages")]
    pub exclusive_bounds: bool,

    /// GenAuth: refuse pages that reach beyond so many rows; 0 for no limit
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, help_heading = "Pages")]
    pub max_rows: u64,

    /// List and count the oldest so many records of a query and no more, as if there were no others; 0 for no limit
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Pages")]
    pub cap: u64,

    /// Answer only the first so much of a longer interval, such as 1h, or the last, such as -1h, as if it ended there
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = offset, allow_hyphen_values = true)]
    #[arg(help_heading = "Pages")]
    pub clip: Millis,

    /// List and count two of three records of a longer interval, and all of others
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Pages")]
    pub thin: Option<Duration>,

    /// Another limit for each interval, lower than --cap by at most so many
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Pages")]
    pub cap_random: u64,

    /// A source hides nothing by --cap, --clip and --thin before it was asked so often
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Pages")]
    pub hide_after: u64,

    /// Refuse intervals that are longer
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Pages")]
    pub refuse_longer: Option<Duration>,

    /// SCloud: share of pages that are empty though more follow
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "Pages")]
    pub empty_pages: f64,

    /// GenAuth: how long a management token lives
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = duration, help_heading = "Pages")]
    pub token_ttl: Duration,

    /// SCloud: how long a NextToken lives
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration, help_heading = "Pages")]
    pub next_token_ttl: Duration,

    /// How far the servers' clock is ahead of this machine's, such as 90s or -90s
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = offset, allow_hyphen_values = true)]
    #[arg(help_heading = "Pages")]
    pub clock_offset: Millis,

    /// How far the Date of answers is off, such as 60s or -1d; the servers go by the right time all the same
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = offset, allow_hyphen_values = true)]
    #[arg(help_heading = "Clocks")]
    pub date_off: Millis,

    /// By how much more it is off at most, ahead or behind, at random for each answer
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration, help_heading = "Clocks")]
    pub date_random: Duration,

    /// Say that it is this year, such as 9999
    #[arg(long, value_name = "YEAR", value_parser = clap::value_parser!(i16).range(1970..=9999), help_heading = "Clocks")]
    pub date_year: Option<i16>,

    /// Say no time at all: a Date that nobody can read
    #[arg(long, help_heading = "Clocks")]
    pub date_unreadable: bool,

    /// Share of answers whose Date is off, drawn for each: with 0.5, as of two nodes
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share, help_heading = "Clocks")]
    pub date_share: f64,

    /// No Date is off before the simulator has run for so long
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration, help_heading = "Clocks")]
    pub date_after: Duration,

    /// From then on for so long; for good when nothing is said
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Clocks")]
    pub date_for: Option<Duration>,

    /// At most so many Dates of each source are off; 0 for no limit
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Clocks")]
    pub date_answers: u64,

    /// How records write their times
    #[arg(long, value_enum, default_value_t = Times::Documented, help_heading = "Clocks")]
    pub times: Times,

    /// How long an answer takes, on average; single ones take half to one and a half of it
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration, help_heading = "Faults")]
    pub latency: Duration,

    /// All faults and hostile habits at moderate rates, and whatever else is asked for
    #[arg(long, help_heading = "Faults")]
    pub faults: bool,

    /// Throttle each source's requests beyond so many a second, with Retry-After; 0 for no limit
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Faults")]
    pub requests_per_second: u64,

    /// Share of requests that are throttled and not told for how long
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub throttle: f64,

    /// Share of requests that are throttled and told to come back in a second (Retry-After)
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub throttle_retry_after: f64,

    /// Share of requests that fail with a code that says to try again
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub errors: f64,

    /// Share of requests that fail with a code of credentials, permission or parameters
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub refusals: f64,

    /// Share of answers that break off: the connection ends early, or the JSON does
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub torn: f64,

    /// Fail all requests for anything between two times, such as 3h..2h, as --errors does; an age is counted from the first
    /// request
    #[arg(long, value_name = "FROM..TO", value_parser = between, help_heading = "Faults")]
    pub unreadable: Option<(Start, Start)>,

    /// For so long after the first request; for good when nothing is said
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Faults")]
    pub unreadable_for: Option<Duration>,

    /// Share of requests that are never answered
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub hang: f64,

    /// How long a request that is never answered is held before its connection is closed
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration, help_heading = "Faults")]
    pub hang_for: Duration,

    /// Share of requests that a gateway answers: status 502 and a page of HTML
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub html: f64,

    /// Share of requests whose connection is closed without an answer
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "Faults")]
    pub close: f64,

    /// Answer with a success that is not true, in one of these ways: all answers from --lie-after for --lie-for, or
    /// --lie-share of them at any time
    #[arg(long, value_enum, value_delimiter = ',', help_heading = "Lies")]
    pub lie: Vec<Lie>,

    /// Share of answers that lie, whatever the time; with no --lie in ways that a careful client survives
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "Lies")]
    pub lie_share: f64,

    /// How long after the first request lying begins
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration, help_heading = "Lies")]
    pub lie_after: Duration,

    /// For how long it lies; for good when nothing is said
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Lies")]
    pub lie_for: Option<Duration>,

    /// How much later than records show the API files them, such as 20s or -20s: what it selects by, while they show when
    /// they happened
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = offset, allow_hyphen_values = true)]
    #[arg(help_heading = "Lies")]
    pub filed_later: Millis,

    /// And how much more, at most, from record to record
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration, help_heading = "Lies")]
    pub filed_spread: Duration,

    /// Ignore the bounds of requests: always the newest 50 records, of which no more can be read
    #[arg(long, help_heading = "Lies")]
    pub ignore_bounds: bool,

    /// List the records that have no time, which are some of those of --odd-share, for every window
    #[arg(long, help_heading = "Lies")]
    pub timeless_everywhere: bool,

    /// Widen the bounds of requests to whole multiples of this, as an API that goes by minutes does
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration, help_heading = "Lies")]
    pub round_bounds: Duration,
}

/// In which order pages list records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// By time, ascending.
    Oldest,
    /// By time, descending.
    Newest,
}

/// How records write their times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Times {
    /// GenAuth in ISO 8601, SCloud in seconds.
    Documented,
    /// GenAuth in seconds with a fraction, SCloud in milliseconds.
    OtherUnit,
    /// As a number with an exponent.
    Exponent,
    /// As text that holds a number.
    Text,
}

/// Where a history begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// So long before the simulator starts.
    Ago(Duration),
    /// At a time, in milliseconds since the Unix epoch.
    At(Millis),
}

impl Default for Options {
    /// What `trailcast simulate` does when nothing else is typed.
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        <Line as clap::Parser>::parse_from(["simulate"]).options
    }
}

impl Options {
    /// These options with what `faults` stands for filled in, where nothing was chosen.
    #[must_use]
    pub fn resolved(mut self) -> Self {
        if !self.faults {
            return self;
        }
        let moderate = [
            (&mut self.throttle, 0.02),
            (&mut self.throttle_retry_after, 0.01),
            (&mut self.errors, 0.03),
            (&mut self.refusals, 0.002),
            (&mut self.torn, 0.02),
            (&mut self.hang, 0.001),
            (&mut self.html, 0.01),
            (&mut self.close, 0.02),
            (&mut self.empty_pages, 0.05),
            (&mut self.twin_share, 0.03),
            (&mut self.late_share, 0.02),
            (&mut self.odd_share, 0.003),
            (&mut self.lie_share, 0.01),
        ];
        for (share, preset) in moderate {
            if *share == 0.0 {
                *share = preset;
            }
        }
        if self.date_off == 0 && self.date_random.is_zero() && self.date_year.is_none() && !self.date_unreadable {
            self.date_random = Duration::from_secs(3600);
            self.date_share = 0.02;
        }
        if self.latency.is_zero() {
            self.latency = Duration::from_millis(10);
        }
        if self.burst == 0 {
            self.burst = 120;
        }
        self.order = Order::Newest;
        self.unstable = true;
        self
    }

    /// The time between two records, in microseconds.
    #[must_use]
    pub fn slot_us(&self) -> u64 {
        let gap = Duration::try_from_secs_f64(1.0 / self.rate).unwrap_or(Duration::MAX);
        u64::try_from(gap.as_micros()).unwrap_or(u64::MAX).clamp(1, 1 << 40)
    }

    /// Where the history begins, when the simulator starts at `now`.
    #[must_use]
    pub fn history_start(&self, now: Millis) -> Millis {
        match (self.start, self.events) {
            (Some(Start::At(time)), _) => time,
            (Some(Start::Ago(age)), _) => now - millis(age),
            (None, Some(events)) => {
                // One block more than the records need, because a burst moves them within their block.
                let slots = events.saturating_add(super::history::BLOCK);
                now - millis(Duration::from_micros(slots.saturating_mul(self.slot_us())))
            }
            (None, None) => now - 3_600_000,
        }
    }

    /// The longest lateness, in milliseconds.
    #[must_use]
    pub fn late_max_ms(&self) -> Millis {
        millis(self.late_max)
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.00001..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number from 0.00001 to 100000".to_owned()),
    }
}

/// A century in milliseconds: sums of durations and times stay far from where they overflow.
const LONGEST: u64 = 36_500 * 86_400_000;

fn duration(text: &str) -> Result<Duration, String> {
    const WRONG: &str = "a duration is a number with a unit: 500ms, 90s, 5m, 6h or 30d";
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(WRONG)?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(WRONG.to_owned()),
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or(WRONG)?;
    if millis > LONGEST {
        return Err("a duration is at most 36500d".to_owned());
    }
    Ok(Duration::from_millis(millis))
}

fn offset(text: &str) -> Result<Millis, String> {
    match text.strip_prefix('-') {
        Some(behind) => Ok(-millis(duration(behind)?)),
        None => Ok(millis(duration(text)?)),
    }
}

fn start(text: &str) -> Result<Start, String> {
    if let Ok(age) = duration(text) {
        return Ok(Start::Ago(age));
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(Start::At(time.as_millisecond())),
        Err(_) => Err("an age such as 6h or 30d, or a time such as 2026-01-31T00:00:00Z".to_owned()),
    }
}

fn between(text: &str) -> Result<(Start, Start), String> {
    let (from, to) = text.split_once("..").ok_or("two ages or times, with .. between them")?;
    Ok((start(from)?, start(to)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_offsets_and_starts_are_read() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("30d"), Ok(Duration::from_hours(720)));
        assert_eq!(offset("-90s"), Ok(-90_000));
        assert_eq!(start("1970-01-01T00:00:01Z"), Ok(Start::At(1000)));
        for wrong in ["", "90", "s", "1 s", "-5s", "36501d", "99999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        let ages = (Start::Ago(Duration::from_hours(3)), Start::At(1000));
        assert_eq!(between("3h..1970-01-01T00:00:01Z"), Ok(ages));
        assert!(between("3h").is_err() && between("3h..").is_err());
        assert!(share("1.5").is_err());
        assert!(rate("0").is_err());
    }

    #[test]
    fn faults_fill_in_only_what_was_not_chosen() {
        let options = Options { faults: true, torn: 0.5, ..Options::default() }.resolved();
        assert!((options.torn - 0.5).abs() < f64::EPSILON);
        assert!(options.close > 0.0 && options.empty_pages > 0.0);
        assert_eq!(options.order, Order::Newest);
    }
}
