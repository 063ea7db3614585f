//! What both APIs have in common: the options, the clock, and per source a history and what was done with it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use crate::event::{Millis, Source};

use super::clock::{Clock, millis};
use super::hash::mix;
use super::history::{History, Slot};
use super::options::{Options, Start};
use super::pages::{Pending, Rows, Timeless};
use super::stats::SourceStats;
use super::truth::Truth;
use super::{genauth, scloud};

/// Remembered runs of pages; more are forgotten, and then count no shifts.
const RUNS: usize = 4096;

/// Everything that a request is answered from.
#[derive(Debug)]
pub struct World {
    /// What is simulated.
    pub options: Options,
    /// The servers' clock.
    pub clock: Clock,
    /// The GenAuth API's part.
    pub genauth: Api,
    /// The SCloud API's part.
    pub scloud: Api,
    /// Signatures that GenAuth has seen.
    pub nonces: Mutex<genauth::Nonces>,
    /// When the first page was asked for.
    pub asked_at: OnceLock<Millis>,
    /// True once the simulator stops.
    pub stopping: watch::Sender<bool>,
}

/// One source's API.
#[derive(Debug)]
pub struct Api {
    source: Source,
    /// Its records.
    pub history: History,
    pending: Mutex<Pending>,
    timeless: Mutex<Timeless>,
    stats: Mutex<SourceStats>,
    /// By run of pages: the offset that would be asked for next, and the index of the record before it.
    runs: Mutex<HashMap<u64, (u64, u64)>>,
    /// The present second, and the requests in it.
    second: Mutex<(Millis, u64)>,
    /// The last answer that was true.
    pub last: Mutex<Vec<u8>>,
}

/// One page of records, with what stands around it.
#[derive(Debug)]
pub struct Page {
    /// In the API's order.
    pub slots: Vec<Slot>,
    /// Records that answer the query, on all pages.
    pub total: u64,
}

/// Which page a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// A hash of all parameters but the place in the run.
    pub run: u64,
    /// Records before the page.
    pub offset: u64,
    /// Records on it, at most.
    pub limit: u64,
    /// This request's own random bits.
    pub nonce: u64,
}

impl World {
    /// Both APIs as they are when the simulator starts.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let options = options.resolved();
        let clock = Clock::start(options.clock_offset);
        let api = |source, salt, unit| Api {
            source,
            history: History::new(&options, salt, unit, clock.started_at()),
            pending: Mutex::default(),
            timeless: Mutex::default(),
            stats: Mutex::default(),
            runs: Mutex::default(),
            second: Mutex::default(),
            last: Mutex::default(),
        };
        Self {
            genauth: api(Source::Genauth, genauth::SALT, genauth::CLOCK_UNIT),
            scloud: api(Source::Scloud, scloud::SALT, scloud::CLOCK_UNIT),
            nonces: Mutex::default(),
            asked_at: OnceLock::new(),
            stopping: watch::Sender::new(false),
            clock,
            options,
        }
    }

    /// A source's part.
    #[must_use]
    pub const fn api(&self, source: Source) -> &Api {
        match source {
            Source::Genauth => &self.genauth,
            Source::Scloud => &self.scloud,
        }
    }

    /// Whether an interval is longer than one that is answered.
    #[must_use]
    pub fn refuses(&self, api: &Api, bounds: (Option<Millis>, Option<Millis>)) -> bool {
        let longest = self.options.refuse_longer.map_or(Millis::MAX, millis);
        let refuses = matches!(bounds, (Some(from), Some(to)) if to - from > longest);
        api.count(|stats| stats.too_long += u64::from(refuses));
        refuses
    }

    /// Whether these times cannot be read now.
    #[must_use]
    pub fn fails(&self, api: &Api, bounds: (Option<Millis>, Option<Millis>)) -> bool {
        let now = self.clock.now();
        let first = *self.asked_at.get_or_init(|| now);
        let Some((from, to)) = self.options.unreadable else { return false };
        let time = |start| match start {
            Start::At(time) => time,
            Start::Ago(age) => first - millis(age),
        };
        let lasts = self.options.unreadable_for.is_none_or(|length| now - first < millis(length));
        let touches = bounds.0.is_none_or(|begin| begin < time(to)) && bounds.1.is_none_or(|end| time(from) <= end);
        api.count(|stats| stats.unreadable += u64::from(lasts && touches));
        lasts && touches
    }

    /// The records that are readable now, of the times in `bounds` (both ends included, unless the options say
    /// otherwise), and that `filter` is true for.
    #[must_use]
    pub fn rows(
        &self,
        api: &Api,
        bounds: (Option<Millis>, Option<Millis>),
        filter: Option<&dyn Fn(&Slot) -> bool>,
    ) -> Rows {
        let (later, spread) = (self.options.filed_later, millis(self.options.filed_spread));
        let round = millis(self.options.round_bounds);
        let hides = locked(&api.stats).requests > self.options.hide_after;
        let clip = if hides { self.options.clip } else { 0 };
        let thin = self.options.thin.map_or(Millis::MAX, millis);
        let is_thin = hides && matches!(bounds, (Some(from), Some(to)) if to - from > thin);
        let query = mix(bounds.0.unwrap_or(0).cast_unsigned(), bounds.1.unwrap_or(0).cast_unsigned());
        let bounds = match bounds {
            (Some(from), Some(to)) if clip != 0 && to - from > clip.abs() => {
                api.count(|stats| stats.clipped += 1);
                if clip > 0 { (Some(from), Some(from + clip)) } else { (Some(to + clip), Some(to)) }
            }
            bounds => bounds,
        };
        let shifted = later != 0 || spread != 0;
        let asked = match bounds {
            _ if self.options.ignore_bounds => (None, None),
            (from, to) if shifted => (from.map(|from| from - later - spread), to.map(|to| to - later)),
            (from, to) if round > 0 => {
                (from.map(|from| from.div_euclid(round) * round), to.map(|to| (to.div_euclid(round) + 1) * round - 1))
            }
            bounds => bounds,
        };
        let mut rows = {
            let mut pending = locked(&api.pending);
            // Read under the lock: `Pending` must not see time go back.
            let now = self.clock.now();
            Rows::readable(&api.history, &mut pending, now, asked, self.options.exclusive_bounds)
        };
        if self.options.ignore_bounds {
            rows = rows.newest(50);
        } else if spread != 0 {
            let inside = |slot: &Slot| {
                let filed =
                    slot.time + later + (mix(self.options.seed, slot.root) % spread.unsigned_abs()).cast_signed();
                bounds.0.is_none_or(|from| from <= filed) && bounds.1.is_none_or(|to| filed <= to)
            };
            rows = rows.filter(&api.history, inside);
        }
        if self.options.timeless_everywhere {
            let has_none =
                |slot: &Slot| api.history.odd(slot.root).is_some() && Truth::of(self, api.source, slot).time.is_none();
            let mut timeless = locked(&api.timeless);
            timeless.advance(&api.history, self.clock.now(), has_none);
            rows = rows.and(timeless.readable(self.clock.now()));
        }
        if is_thin {
            api.count(|stats| stats.clipped += 1);
            rows = rows.filter(&api.history, |slot| !mix(self.options.seed, slot.root).is_multiple_of(3));
        }
        let rows = match filter {
            Some(filter) => rows.filter(&api.history, filter),
            None => rows,
        };
        let cap = self.options.cap.saturating_sub(query % (self.options.cap_random + 1));
        if cap == 0 || rows.len() <= cap || !hides {
            return rows;
        }
        api.count(|stats| stats.clipped += 1);
        rows.oldest(cap)
    }

    /// One page of `rows`, counted.
    #[must_use]
    pub fn page(&self, api: &Api, rows: &Rows, ask: Ask) -> Page {
        let order = self.options.order;
        let shuffle = self.options.unstable.then_some(ask.nonce);
        let slots = rows.page(&api.history, ask.offset, ask.limit, order, shuffle);
        let end = ask.offset + slots.len() as u64;
        let before = |offset: u64| offset.checked_sub(1).and_then(|offset| rows.at(offset, order));
        let shifted = {
            let mut runs = locked(&api.runs);
            let expected = runs.remove(&ask.run).filter(|(next, _)| *next == ask.offset);
            if runs.len() >= RUNS {
                runs.clear();
            }
            if let Some(last) = before(end) {
                runs.insert(ask.run, (end, last));
            }
            expected.is_some_and(|(_, last)| before(ask.offset) != Some(last))
        };
        let twins_cut = slots.last().is_some_and(|last| {
            let next = rows.at(end, order);
            next.is_some_and(|next| api.history.slot(next, &mut super::history::Walk::default()).root == last.root)
        });
        api.count(|stats| {
            stats.pages += 1;
            stats.page_shifts += u64::from(shifted);
            stats.twins_cut += u64::from(twins_cut);
            stats.shuffled_pages +=
                u64::from(shuffle.is_some() && slots.windows(2).any(|two| two[0].time == two[1].time));
            let crowded = slots.len() as u64 == ask.limit && slots.windows(2).all(|two| two[0].time == two[1].time);
            stats.crowded_pages += u64::from(crowded && slots.len() > 1);
            for (place, slot) in slots.iter().enumerate() {
                stats.records += 1;
                stats.late_records += u64::from(slot.readable_at > slot.at);
                stats.odd_records += u64::from(api.history.odd(slot.root).is_some());
                let twin = slot.root != slot.index || slots[..place].iter().any(|other| other.root == slot.root);
                stats.twin_records += u64::from(twin);
            }
        });
        Page { slots, total: rows.len() }
    }

    /// Counts a request, and tells whether there are more within this second than the options allow.
    #[must_use]
    pub fn over_limit(&self, api: &Api) -> bool {
        let now = self.clock.now().div_euclid(1000);
        let mut second = locked(&api.second);
        if second.0 != now {
            *second = (now, 0);
        }
        second.1 += 1;
        let limit = self.options.requests_per_second;
        limit > 0 && second.1 > limit
    }

    /// Bits that differ with each request, and are the same in each run of the same requests.
    #[must_use]
    pub fn nonce(&self, source: Source, request: u64) -> u64 {
        mix(self.api(source).history.seed() ^ 0x7265_7175_6573_7473, request)
    }
}

impl Api {
    /// Changes the counts.
    pub fn count<T>(&self, change: impl FnOnce(&mut SourceStats) -> T) -> T {
        change(&mut locked(&self.stats))
    }
}

/// The guard, whoever panicked while holding it: nothing here stays half changed.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
