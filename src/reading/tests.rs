//! A hostile source, and what a reading makes of it. `world` is also what the lane model in `state` reads.

use proptest::prelude::*;

use super::*;
use crate::page::Position;
use world::{Order, World, WorldOptions};

pub(crate) mod world {
    //! A log behind an API that keeps no promise but one: a page is a snapshot.

    use bytes::Bytes;
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{RngExt, SeedableRng};

    use crate::event::{Fingerprint, Listed, Millis};
    use crate::page::{Page, PageRequest, Position};
    use crate::reading::{self, Paging, Rules, Shard, Suspicion};

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Order {
        Oldest,
        Newest,
        /// By time, newest first, equal times in another order at each request.
        Unstable,
        /// By nothing: another order at each request.
        Random,
    }

    #[derive(Debug, Clone)]
    pub(crate) struct WorldOptions {
        pub(crate) seed: u64,
        pub(crate) paging: Paging,
        pub(crate) order: Order,
        pub(crate) exclusive: bool,
        /// Records a second, and for how many seconds.
        pub(crate) rate: f64,
        pub(crate) seconds: i64,
        pub(crate) late_share: f64,
        pub(crate) late_most: Millis,
        pub(crate) twin_share: f64,
        pub(crate) untimed_share: f64,
        /// Records without a time are listed whatever is asked for.
        pub(crate) untimed_everywhere: bool,
        /// How much later than records show the API files them, and how much more at most, from record to record.
        pub(crate) skew: (Millis, Millis),
        /// From when on. Before that it files them by the time that they show.
        pub(crate) shifts_at: Millis,
        /// How long the source takes to answer.
        pub(crate) answer: Millis,
        pub(crate) page_limit: u32,
        /// The first so many records of a query are listed and counted, and no others; 0 for all.
        pub(crate) cap: usize,
    }

    /// Nothing but records in their order.
    pub(crate) fn calm() -> WorldOptions {
        WorldOptions {
            seed: 7,
            paging: Paging::Numbered,
            order: Order::Newest,
            exclusive: false,
            rate: 1.0,
            seconds: 90,
            late_share: 0.0,
            late_most: 1,
            twin_share: 0.0,
            untimed_share: 0.0,
            untimed_everywhere: false,
            skew: (0, 0),
            shifts_at: 0,
            answer: 0,
            page_limit: 50,
            cap: 0,
        }
    }

    prop_compose! {
        pub(crate) fn options()(
            seed in any::<u64>(),
            paging in prop_oneof![Just(Paging::Numbered), Just(Paging::Tokens)],
            order in prop_oneof![Just(Order::Oldest), Just(Order::Newest), Just(Order::Unstable)],
            exclusive in any::<bool>(),
            rate in prop_oneof![0.1f64..2.0, 2.0f64..30.0],
            late_share in prop_oneof![Just(0.0), 0.0f64..0.6],
            late_most in 1i64..40_000,
            twin_share in prop_oneof![Just(0.0), 0.0f64..0.5],
            untimed_share in prop_oneof![4 => Just(0.0), 1 => 0.0f64..0.05],
            answer in prop_oneof![0i64..10, 10i64..300],
            page_limit in 5u32..20,
        ) -> WorldOptions {
            // A clock unit must fit a page, in all likelihood, or nothing is promised.
            let rate = if paging == Paging::Tokens { rate.min(f64::from(page_limit) / 6.0) } else { rate };
            WorldOptions {
                seed, paging, order, exclusive, rate, seconds: 90, late_share, late_most, twin_share, untimed_share,
                untimed_everywhere: false, skew: (0, 0), shifts_at: 0, answer, page_limit, cap: 0,
            }
        }
    }

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Truth {
        pub(crate) fingerprint: Fingerprint,
        pub(crate) time: Millis,
        /// The time by which the API selects and sorts it.
        pub(crate) filed: Millis,
        pub(crate) readable: Millis,
        pub(crate) untimed: bool,
    }

    impl Truth {
        /// As it was before the API began to file by another time.
        const fn unshifted(self) -> Self {
            Self { filed: self.time, readable: self.readable - (self.filed - self.time), ..self }
        }
    }

    #[derive(Debug)]
    pub(crate) struct World {
        pub(crate) options: WorldOptions,
        pub(crate) truth: Vec<Truth>,
        pub(crate) now: Millis,
        rng: StdRng,
        /// Pages asked for, and how often an answer listed something that the page before it had not yet known.
        pub(crate) pages: u64,
        pub(crate) arrivals_while_reading: u64,
        readable_before: usize,
        /// What is known to be listed whatever is asked for.
        pub(crate) everywhere: reading::Listed,
    }

    pub(crate) fn rules_of(paging: Paging, page_limit: u32) -> Rules {
        Rules {
            unit: World::unit_of(paging),
            paging,
            page_limit,
            max_rows: 400,
            max_bytes: 1 << 20,
            max_unit_bytes: 1 << 20,
            max_unit_rows: 100_000,
            everywhere: reading::Listed::default(),
            shard: Shard::WHOLE,
            deepest: 1000,
            cap: None,
            suspicion: Suspicion::Nothing,
        }
    }

    impl World {
        pub(crate) fn new(options: WorldOptions) -> Self {
            let mut rng = StdRng::seed_from_u64(options.seed);
            let unit = Self::unit_of(options.paging);
            let mut truth = Vec::new();
            let mut at = 0.0;
            let mut serial = 0u128;
            loop {
                at += -(1.0 - rng.random::<f64>()).ln() * 1000.0 / options.rate;
                if at >= (options.seconds * 1000) as f64 {
                    break;
                }
                let exact = at as Millis;
                let copies = if rng.random_bool(options.twin_share) { rng.random_range(2..=4) } else { 1 };
                let untimed = rng.random_bool(options.untimed_share);
                serial += 1;
                let mut fingerprint = [0; 16];
                fingerprint.copy_from_slice(&blake3::hash(&serial.to_be_bytes()).as_bytes()[..16]);
                let (skew, more) = options.skew;
                let skew = skew + if more == 0 { 0 } else { rng.random_range(0..=more) };
                for _ in 0..copies {
                    let late =
                        if rng.random_bool(options.late_share) { rng.random_range(0..options.late_most) } else { 0 };
                    let time = exact.div_euclid(unit) * unit;
                    let (fingerprint, filed) = (Fingerprint(fingerprint), (exact + skew).div_euclid(unit) * unit);
                    truth.push(Truth { fingerprint, time, filed, readable: exact + late + skew, untimed });
                }
            }
            Self {
                options,
                truth,
                now: 0,
                rng,
                pages: 0,
                arrivals_while_reading: 0,
                readable_before: 0,
                everywhere: reading::Listed::default(),
            }
        }

        /// Adds so many records without a time that are listed whatever is asked for.
        pub(crate) fn list_everywhere(&mut self, records: u64) {
            for serial in 0..records {
                let mut fingerprint = [0; 16];
                fingerprint.copy_from_slice(&blake3::hash(&serial.to_be_bytes()).as_bytes()[..16]);
                let fingerprint = Fingerprint(fingerprint);
                self.truth.push(Truth { fingerprint, time: 0, filed: 0, readable: 0, untimed: true });
            }
        }

        fn unit_of(paging: Paging) -> Millis {
            if paging == Paging::Tokens { 1000 } else { 1 }
        }

        pub(crate) fn rules(&self) -> Rules {
            let (paging, page_limit) = (self.options.paging, self.options.page_limit);
            Rules { everywhere: self.everywhere, ..rules_of(paging, page_limit) }
        }

        pub(crate) fn answer(&mut self, request: &PageRequest) -> Page {
            assert!(request.limit <= self.options.page_limit);
            self.now += self.rng.random_range(0..=self.options.answer);
            self.pages += 1;
            let inside = |time: Millis| {
                if self.options.exclusive {
                    request.from < time && time < request.to
                } else {
                    request.from <= time && time <= request.to
                }
            };
            let mut listed: Vec<Truth> = self
                .truth
                .iter()
                .copied()
                .map(|truth| if self.now < self.options.shifts_at { truth.unshifted() } else { truth })
                .filter(|truth| truth.readable <= self.now)
                .filter(|truth| inside(truth.filed) || self.options.untimed_everywhere && truth.untimed)
                .collect();
            if request.position != Position::First && listed.len() > self.readable_before {
                self.arrivals_while_reading += 1;
            }
            self.readable_before = listed.len();
            // Ties go by when they became readable, as in a real index.
            listed.sort_by_key(|truth| (truth.filed, truth.readable));
            match self.options.order {
                Order::Oldest => {}
                Order::Newest => listed.reverse(),
                Order::Unstable => {
                    listed.shuffle(&mut self.rng);
                    listed.sort_by_key(|truth| -truth.filed);
                }
                Order::Random => listed.shuffle(&mut self.rng),
            }
            if self.options.cap > 0 {
                listed.truncate(self.options.cap);
            }
            let limit = request.limit as usize;
            let from = match &request.position {
                Position::First => 0,
                Position::Number(page) => (*page as usize - 1) * limit,
                Position::Token(token) => token.parse().unwrap(),
            };
            let records: Vec<Listed> = listed
                .iter()
                .skip(from)
                .take(limit)
                .map(|truth| Listed {
                    fingerprint: truth.fingerprint,
                    time: (!truth.untimed).then_some(truth.time),
                    raw: Bytes::from_static(b"{}"),
                })
                .collect();
            let to = from + records.len();
            match self.options.paging {
                Paging::Numbered => Page { records, total: Some(listed.len() as u64), ..Page::default() },
                Paging::Tokens => {
                    Page { records, next_token: (to < listed.len()).then(|| to.to_string()), ..Page::default() }
                }
            }
        }
    }
}

pub(crate) fn read(world: &mut World, window: Window, inclusive: Inclusive) -> Reading {
    let mut reading = Reading::new(world.rules(), window, inclusive);
    let mut asked = 0;
    while let Some(request) = reading.next() {
        asked += 1;
        assert!(asked < 20_000, "a reading must end: {reading:?}");
        let page = world.answer(&request);
        reading.give(page);
    }
    reading
}

/// The records found in `window`; margins may list others.
fn inside(reading: Reading, window: Window) -> usize {
    let inside = |found: &&Found| found.time.is_some_and(|time| window.contains(time));
    reading.into_found().iter().filter(inside).map(|found| found.raw.len()).sum()
}

fn counts(found: &[Found]) -> std::collections::BTreeMap<crate::event::Fingerprint, usize> {
    found.iter().map(|found| (found.fingerprint, found.raw.len())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Against arrivals newest first, late records, twins and equal times in another order at each request: whatever
    /// was readable when the reading began is found, and nothing is counted too often.
    #[test]
    fn a_window_that_counts_is_complete_and_never_over_counted(
        options in world::options(), from in 0i64..60, length in 1i64..30, began in 0i64..60_000,
    ) {
        let mut world = World::new(options);
        let window = Window { from: from * 1000, to: (from + length) * 1000 };
        world.now = began.max(window.from);
        let readable_then = world.now;
        let reading = read(&mut world, window, None);
        let end = reading.end().unwrap();
        let Some(found) = matches!(end, End::Complete(_)).then(|| counts(&reading.into_found())) else { return Ok(()) };
        for truth in world.truth.iter().filter(|truth| window.contains(truth.time)) {
            let same = |other: &&world::Truth| other.fingerprint == truth.fingerprint;
            let then = world.truth.iter().filter(same).filter(|truth| truth.readable <= readable_then).count();
            let now = world.truth.iter().filter(same).filter(|truth| truth.readable <= world.now).count();
            let counted = found.get(&truth.fingerprint).copied().unwrap_or(0);
            prop_assert!(counted <= now, "over-count: {counted} of {now} {truth:?}");
            let fits_a_page = world.truth.iter().filter(|other| other.time == truth.time).count()
                < world.options.page_limit as usize && end != End::Complete(Outcome::Unstable);
            prop_assert!(counted >= then || !fits_a_page, "missing: {counted} of {then} {truth:?} {end:?}");
        }
    }
}

fn quiet(paging: Paging, rate: f64) -> WorldOptions {
    WorldOptions { paging, rate, ..world::calm() }
}

/// Whichever end of an interval a limit leaves, wherever in it most records lie; one clock unit cannot be cut.
#[test]
fn what_a_limit_hides_is_found_in_parts() {
    use Suspicion::{Limit, Nothing};
    for (paging, order) in [(Paging::Numbered, Order::Oldest), (Paging::Tokens, Order::Newest)] {
        for window in [(-100_000, 90_000), (0, 90_000), (0, 190_000)] {
            for (cap, suspicion) in [(None, Limit(83)), (Some(83), Nothing), (None, Nothing)] {
                let window = Window { from: window.0, to: window.1 };
                let mut world = World::new(WorldOptions { order, cap: 83, page_limit: 70, ..quiet(paging, 3.0) });
                world.now = 1_000_000;
                assert!(world.truth.len() > 250, "{}", world.truth.len());
                let rules = Rules { cap, suspicion, ..world.rules() };
                let mut reading = Reading::new(rules, window, None);
                while let Some(request) = reading.next() {
                    reading.give(world.answer(&request));
                }
                assert_eq!((reading.most_listed(), reading.gaps().len()), (83, 0));
                let all = if (cap, suspicion) == (None, Nothing) { 83 } else { world.truth.len() };
                assert_eq!(reading.into_found().len(), all, "{paging:?} {window:?}: {} pages", world.pages);
            }
        }
    }
    for (cap, suspicion, gaps) in [(None, Nothing, 0), (None, Limit(100), 0), (Some(100), Nothing, 1)] {
        let mut world = World::new(WorldOptions { cap: 100, ..quiet(Paging::Numbered, 300.0) });
        world.truth.iter_mut().for_each(|truth| (truth.time, truth.filed) = (5, 5));
        world.now = 1_000_000;
        let rules = Rules { cap, suspicion, ..world.rules() };
        let mut reading = Reading::new(rules, Window { from: 0, to: 10 }, None);
        while let Some(request) = reading.next() {
            reading.give(world.answer(&request));
        }
        assert_eq!(reading.gaps().len(), gaps, "only where it is known");
        assert_eq!(reading.full_units().len(), usize::from(suspicion == Limit(100)));
        assert!(gaps == 0 || reading.gaps()[0].reason == GapReason::TooDeep);
    }
}

#[test]
fn a_quiet_window_costs_one_reading() {
    for paging in [Paging::Numbered, Paging::Tokens] {
        let mut world = World::new(quiet(paging, 4.0));
        world.now = 1_000_000;
        let reading = read(&mut world, Window { from: 0, to: 90_000 }, None);
        assert_eq!(reading.end(), Some(End::Complete(Outcome::Complete)));
        let found = reading.into_found().len();
        assert_eq!(found, world.truth.len());
        assert_eq!(world.pages, found.div_ceil(50) as u64);
    }
}

#[test]
fn twins_cut_by_a_page_boundary_are_counted_by_their_unit_alone() {
    let options = WorldOptions { twin_share: 0.6, order: Order::Oldest, ..quiet(Paging::Tokens, 1.5) };
    let mut world = World::new(options);
    world.now = 1_000_000;
    let reading = read(&mut world, Window { from: 0, to: 90_000 }, None);
    assert_eq!(reading.end(), Some(End::Complete(Outcome::Reread)), "the seed must put twins on a boundary");
    assert_eq!(reading.inclusive(), Some(true), "reading a unit alone tells whether bounds include");
    assert_eq!(reading.into_found().iter().map(|found| found.raw.len()).sum::<usize>(), world.truth.len());
}

#[test]
fn a_unit_of_more_than_a_page_in_random_order_is_read_until_it_adds_up() {
    let options = WorldOptions { order: Order::Unstable, page_limit: 20, ..quiet(Paging::Tokens, 30.0) };
    let mut world = World::new(options);
    world.now = 1_000_000;
    for second in 0..80 {
        let window = Window { from: second * 1000, to: (second + 1) * 1000 };
        let reading = read(&mut world, window, Some(true));
        assert_ne!(reading.end(), Some(End::Complete(Outcome::Unstable)));
        let truth = world.truth.iter().filter(|truth| truth.time == window.from).count();
        assert_eq!(inside(reading, window), truth);
    }
}

#[test]
fn a_unit_that_never_adds_up_is_unstable_and_never_over_counted() {
    // Twins of four kinds in random order over many small pages: hardly a page shows all of a kind.
    let options =
        WorldOptions { order: Order::Unstable, twin_share: 1.0, page_limit: 5, ..quiet(Paging::Tokens, 30.0) };
    let mut world = World::new(options);
    world.now = 1_000_000;
    let reading = read(&mut world, Window { from: 5000, to: 6000 }, Some(true));
    assert_eq!(reading.end(), Some(End::Complete(Outcome::Unstable)));
    let truth = world.truth.iter().filter(|truth| truth.time == 5000).count();
    let found = inside(reading, Window { from: 5000, to: 6000 });
    assert!(found <= truth && found * 10 >= truth * 4, "{found} of {truth}");
}

#[test]
fn a_window_with_more_rows_than_may_be_held_is_given_back() {
    for paging in [Paging::Numbered, Paging::Tokens] {
        let mut world = World::new(quiet(paging, 20.0));
        world.now = 1_000_000;
        let reading = read(&mut world, Window { from: 0, to: 90_000 }, None);
        assert!(matches!(reading.end(), Some(End::Overflow { rows }) if rows > 400), "{:?}", reading.end());
    }
}

#[test]
fn a_run_that_cannot_go_on_is_read_again_and_then_halved() {
    let mut world = World::new(quiet(Paging::Tokens, 4.0));
    world.now = 1_000_000;
    let mut reading = Reading::new(world.rules(), Window { from: 0, to: 90_000 }, None);
    let mut voided = 0;
    while let Some(request) = reading.next() {
        if matches!(request.position, Position::Token(_)) && voided < 3 {
            voided += 1;
            reading.void();
            continue;
        }
        reading.give(world.answer(&request));
    }
    assert_eq!(reading.end(), Some(End::Complete(Outcome::Split)));
    assert_eq!(reading.into_found().len(), world.truth.len());
}

#[test]
fn a_unit_of_more_than_a_page_counts_only_once_a_run_has_come_to_its_end() {
    let mut world = World::new(quiet(Paging::Tokens, 80.0));
    world.now = 1_000_000;
    let unit = Window { from: 5000, to: 6000 };
    let mut reading = Reading::new(world.rules(), unit, Some(true));
    let mut voided = 0;
    while let Some(request) = reading.next() {
        if matches!(request.position, Position::Token(_)) && voided < MOST_READINGS - 4 {
            voided += 1;
            reading.void();
            continue;
        }
        reading.give(world.answer(&request));
    }
    assert_eq!(voided, MOST_READINGS - 4);
    assert_eq!(reading.end(), Some(End::Complete(Outcome::Reread)));
    let there = world.truth.iter().filter(|truth| unit.contains(truth.time)).count();
    assert!(there > 50, "the seed must put more than a page into the unit");
    assert_eq!(inside(reading, unit), there);
}

#[test]
fn a_token_that_comes_again_voids_the_run() {
    let mut reading = Reading::new(world::rules_of(Paging::Tokens, 50), Window { from: 0, to: 60_000 }, None);
    let page = |token: &str| Page { next_token: Some(token.to_owned()), ..Page::default() };
    reading.give(page("a"));
    assert_eq!(
        reading.next().unwrap().position,
        Position::Token("a".to_owned()),
        "an empty page with a token is not the end"
    );
    reading.give(page("a"));
    assert_eq!(reading.next().unwrap().position, Position::First);
}

#[test]
fn an_api_that_always_has_one_more_empty_page_is_not_followed_for_ever() {
    let rules = world::rules_of(Paging::Tokens, 50);
    let mut reading = Reading::new(rules, Window { from: 0, to: 2000 }, None);
    let mut asked = 0;
    while reading.next().is_some() {
        asked += 1;
        assert!(asked < 100_000);
        reading.give(Page { next_token: Some(asked.to_string()), ..Page::default() });
    }
    assert_eq!(reading.end(), Some(End::Complete(Outcome::Unstable)));
    assert_eq!(reading.gaps(), [Gap { from: 0, to: 2000, reason: GapReason::Endless }]);
    assert!(asked <= 700, "{asked} requests");
}

#[test]
fn a_total_that_does_not_add_up_is_no_proof_whatever_else_is_settled() {
    // In an order by nothing, a record of one time hides where one of another time stands twice.
    for seed in 0..40 {
        let options = WorldOptions { seed, order: Order::Random, page_limit: 10, ..quiet(Paging::Numbered, 0.3) };
        let mut world = World::new(options);
        world.now = 1_000_000;
        let reading = read(&mut world, Window { from: 0, to: 90_000 }, None);
        assert_eq!(reading.into_found().len(), world.truth.len());
    }
}

#[test]
fn twins_cut_by_a_page_boundary_inside_a_crowded_unit_come_together_on_pages_of_another_size() {
    let options = WorldOptions { order: Order::Oldest, page_limit: 10, ..quiet(Paging::Tokens, 1.0) };
    let mut world = World::new(options);
    let one = world.truth[0];
    // 25 records of one second; the tenth and the eleventh are twins.
    world.truth = (0..25u8)
        .map(|n| world::Truth {
            fingerprint: crate::event::Fingerprint([if n == 10 { 9 } else { n }; 16]),
            time: 5000,
            filed: 5000,
            readable: 5000 + Millis::from(n),
            ..one
        })
        .collect();
    world.now = 1_000_000;
    let reading = read(&mut world, Window { from: 5000, to: 6000 }, None);
    assert_eq!(reading.end(), Some(End::Complete(Outcome::Reread)));
    assert_eq!(reading.into_found().iter().map(|found| found.raw.len()).sum::<usize>(), 25);
}

/// An API that lies for a number of answers, each in a way of its own, and then tells the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// The list stops short of what the total counts.
    ShortList,
    /// The total counts this page alone.
    CountOfThePage,
    /// The total counts one more than there is.
    OneMore,
    /// The total is beyond all reason.
    HugeTotal,
    /// Later pages list nothing.
    EmptyLaterPages,
    /// Later pages cannot be had.
    NoLaterPages,
    /// Later pages list what the first one lists.
    FirstPageAgain,
    /// Every page has a token to one more empty page.
    EndlessTokens,
    /// No page has a token.
    NoTokens,
    /// Pages are larger than may be held unless few records are asked for.
    TooLarge,
}

const LIES: [Lie; 10] = [
    Lie::ShortList,
    Lie::CountOfThePage,
    Lie::OneMore,
    Lie::HugeTotal,
    Lie::EmptyLaterPages,
    Lie::NoLaterPages,
    Lie::FirstPageAgain,
    Lie::EndlessTokens,
    Lie::NoTokens,
    Lie::TooLarge,
];

/// Reads with `lies` answers that lie; also how often the reading was told that something is wrong.
fn read_liar(world: &mut World, window: Window, lie: Lie, lies: u32) -> (Reading, u32, u32) {
    let mut reading = Reading::new(world.rules(), window, None);
    let (mut asked, mut breaches) = (0, 0);
    while let Some(request) = reading.next() {
        asked += 1;
        assert!(asked < 20_000, "a reading must end: {reading:?}");
        let later = request.position != Position::First;
        let honest = asked > lies;
        if !honest && (lie == Lie::NoLaterPages && later || lie == Lie::TooLarge && request.limit > 2) {
            breaches += 1;
            if later && lie == Lie::NoLaterPages {
                reading.void()
            } else {
                reading.too_large()
            }
            continue;
        }
        let token_of_a_lie = matches!(&request.position, Position::Token(token) if token.starts_with('x'));
        let mut page = match &request.position {
            _ if token_of_a_lie && honest => {
                reading.void();
                continue;
            }
            _ if token_of_a_lie => Page::default(),
            Position::Number(_) if !honest && lie == Lie::FirstPageAgain => {
                world.answer(&PageRequest { position: Position::First, ..request.clone() })
            }
            _ => world.answer(&request),
        };
        if !honest {
            let listed = page.records.len() as u64;
            match lie {
                Lie::ShortList if page.total.is_some_and(|total| total > 1) => {
                    page.records.truncate(page.records.len() / 2 + 1)
                }
                Lie::CountOfThePage => page.total = page.total.map(|_| listed),
                Lie::OneMore => page.total = page.total.map(|total| total + 1),
                Lie::HugeTotal => page.total = page.total.map(|_| 1_000_000_000_000),
                Lie::EmptyLaterPages if later => page.records.clear(),
                Lie::EndlessTokens if page.total.is_none() => page.next_token = Some(format!("x{asked}")),
                Lie::NoTokens => page.next_token = None,
                _ => {}
            }
        }
        breaches += u32::from(reading.give(page).is_some());
    }
    (reading, asked, breaches)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Whatever it says for a while: once the lie is over, a window that counts is complete and not over-counted, or its
    /// gap is told; and it ends within bounds.
    #[test]
    fn a_lie_that_ends_costs_nothing_but_calls(
        options in world::options(), lie in proptest::sample::select(&LIES[..]), lies in 1u32..60, length in 1i64..30,
    ) {
        let options = WorldOptions { late_share: 0.0, ..options };
        let mut world = World::new(options);
        world.now = 1_000_000;
        let window = Window { from: 20_000, to: 20_000 + length * 1000 };
        let (reading, asked, _) = read_liar(&mut world, window, lie, lies);
        let honest = u32::try_from(world.truth.len()).unwrap();
        prop_assert!(asked <= 40 * (lies + 10) + 30 * honest, "{asked} requests for {lies} lies");
        prop_assert!(reading.todo.capacity() <= 20 * 64, "a number from outside sized something");
        let end = reading.end().unwrap();
        let gaps = reading.gaps().to_vec();
        let End::Complete(outcome) = end else { return Ok(()) };
        // A list that stops short where nothing counts looks like one that ends: that is for the neighbourhood to doubt.
        let unproven = [Lie::NoTokens, Lie::EmptyLaterPages].contains(&lie) && world.options.paging == Paging::Tokens;
        let found = counts(&reading.into_found());
        for truth in world.truth.iter().filter(|truth| window.contains(truth.time)) {
            let there = world.truth.iter().filter(|other| other.fingerprint == truth.fingerprint).count();
            let counted = found.get(&truth.fingerprint).copied().unwrap_or(0);
            prop_assert!(counted <= there, "over-count: {counted} of {there} {truth:?}");
            let told = gaps.iter().any(|gap| gap.from <= truth.time && truth.time < gap.to);
            let fits_a_page = world.truth.iter().filter(|other| other.time == truth.time).count()
                < world.options.page_limit as usize && outcome != Outcome::Unstable;
            prop_assert!(counted == there || told || !fits_a_page || unproven, "missing: {counted} of {there} {truth:?} {end:?}");
        }
    }
}

/// The property above is worth something only if what it survives happens.
#[test]
fn every_lie_is_met() {
    for lie in LIES {
        for paging in [Paging::Numbered, Paging::Tokens] {
            let numbered_only = [
                Lie::ShortList,
                Lie::CountOfThePage,
                Lie::OneMore,
                Lie::HugeTotal,
                Lie::EmptyLaterPages,
                Lie::FirstPageAgain,
            ];
            let tokens_only = [Lie::EndlessTokens, Lie::NoTokens];
            if paging == Paging::Tokens && numbered_only.contains(&lie)
                || paging == Paging::Numbered && tokens_only.contains(&lie)
            {
                continue;
            }
            let mut world = World::new(quiet(paging, 4.0));
            world.now = 1_000_000;
            let (reading, asked, breaches) = read_liar(&mut world, Window { from: 0, to: 90_000 }, lie, 9);
            let overflows = matches!(reading.end(), Some(End::Overflow { .. }));
            assert!(breaches > 0 || asked > 9 || overflows, "{lie:?} {paging:?}: {asked} requests");
            assert_eq!(reading.gaps(), [], "{lie:?}");
            if let Some(End::Complete(_)) = reading.end() {
                assert_eq!(reading.into_found().len(), world.truth.len(), "{lie:?} {paging:?}");
            } else {
                assert_eq!(lie, Lie::HugeTotal, "a window with so many is asked for in parts");
            }
        }
    }
}

#[test]
fn a_record_that_is_too_large_alone_is_left_out_and_its_place_told() {
    for paging in [Paging::Numbered, Paging::Tokens] {
        let mut world = World::new(quiet(paging, 4.0));
        world.now = 1_000_000;
        let large = world.truth[100];
        let mut reading = Reading::new(world.rules(), Window { from: 0, to: 90_000 }, None);
        let mut asked = 0;
        while let Some(request) = reading.next() {
            asked += 1;
            assert!(asked < 5000);
            let page = world.answer(&request);
            if page.records.iter().any(|record| record.fingerprint == large.fingerprint) {
                reading.too_large();
            } else {
                reading.give(page);
            }
        }
        assert!(matches!(reading.end(), Some(End::Complete(Outcome::Unstable))), "{:?}", reading.end());
        assert!(reading.gaps().iter().all(|gap| gap.reason == GapReason::TooLarge));
        assert!(reading.gaps().iter().any(|gap| gap.from <= large.time && large.time < gap.to), "{:?}", reading.gaps());
        let lost = world.truth.len() - reading.into_found().len();
        let beside = world.truth.iter().filter(|truth| truth.time == large.time).count();
        assert!((1..=beside).contains(&lost), "{lost} lost of {beside} {paging:?}");
    }
}

#[test]
fn an_interval_that_cannot_be_had_is_given_up_alone() {
    let mut world = World::new(quiet(Paging::Numbered, 4.0));
    world.now = 1_000_000;
    let bad = world.truth[100].time;
    let mut reading = Reading::new(world.rules(), Window { from: 0, to: 90_000 }, None);
    while let Some(request) = reading.next() {
        if (request.from..=request.to).contains(&bad) {
            reading.refused();
        } else {
            reading.give(world.answer(&request));
        }
    }
    let [gap] = reading.gaps() else { panic!("one gap: {:?}", reading.gaps()) };
    assert!(bad - 1 <= gap.from && gap.to <= bad + 2, "{gap:?}");
    assert_eq!(reading.into_found().len(), world.truth.len() - 1);
}

/// Twins that differ in what does not identify them are both kept, whichever stands first where they stand together.
#[test]
fn the_text_of_each_twin_is_kept() {
    let listed = |raw: &'static str| crate::event::Listed {
        fingerprint: crate::event::Fingerprint([7; 16]),
        time: Some(5000),
        raw: bytes::Bytes::from_static(raw.as_bytes()),
    };
    for (first, together) in [("y", ["x", "y"]), ("y", ["y", "x"]), ("x", ["x", "y"])] {
        let mut tally = Tally::default();
        let run = tally.begin_run((0, 1));
        tally.begin_page();
        tally.see(run, &[listed(first)], 0);
        let run = tally.begin_run((0, 1));
        tally.begin_page();
        let page = together.map(listed);
        for place in 0..2 {
            tally.see(run, &page, place);
        }
        let mut texts = tally.into_found().remove(0).raw;
        texts.sort();
        assert_eq!(texts, ["x", "y"], "{first} {together:?}");
    }
}

#[test]
fn a_unit_that_is_too_large_is_read_in_parts_that_are_all_of_it() {
    let mut world = World::new(quiet(Paging::Tokens, 300.0));
    world.now = 1_000_000;
    let unit = Window { from: 5000, to: 6000 };
    let there = world.truth.iter().filter(|truth| unit.contains(truth.time)).count();
    assert!(there > 200);
    // A raw record of the world is 2 bytes, and none is shared.
    let mut read_in = |shard: Shard, max_unit_bytes: u64| {
        let mut reading = Reading::new(Rules { shard, max_unit_bytes, ..world.rules() }, unit, Some(true));
        while let Some(request) = reading.next() {
            reading.give(Page { held: Hold::uncounted(1000), ..world.answer(&request) });
        }
        reading
    };
    assert_eq!(read_in(Shard::WHOLE, 2000).end(), Some(End::Outgrown));
    let mut found = 0;
    let mut next = Some(Shard { index: 0, of: 4 });
    while let Some(shard) = next {
        let part = read_in(shard, 2000);
        assert!(matches!(part.end(), Some(End::Complete(_))), "{:?}", part.end());
        let inside = inside(part, unit);
        assert!(inside > there / 8 && inside < there / 2, "{inside} of {there}");
        found += inside;
        next = shard.next();
    }
    assert_eq!(found, there);
}
