//! A hostile source, and what a reading makes of it. `world` is also what the lane model in `state` reads.

use proptest::prelude::*;

use super::*;
use crate::source::Position;
use world::{Order, World, WorldOptions};

pub(crate) mod world {
    //! A log behind an API that keeps no promise but one: a page is a snapshot.

    use bytes::Bytes;
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{RngExt, SeedableRng};

    use crate::event::{Fingerprint, Listed, Millis};
    use crate::reading::{Paging, Rules};
    use crate::source::{Page, PageRequest, Position};

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
        /// How long the source takes to answer.
        pub(crate) answer: Millis,
        pub(crate) page_limit: u32,
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
                answer, page_limit,
            }
        }
    }

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Truth {
        pub(crate) fingerprint: Fingerprint,
        pub(crate) time: Millis,
        pub(crate) readable: Millis,
        pub(crate) untimed: bool,
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
                for _ in 0..copies {
                    let late =
                        if rng.random_bool(options.late_share) { rng.random_range(0..options.late_most) } else { 0 };
                    let time = exact.div_euclid(unit) * unit;
                    truth.push(Truth { fingerprint: Fingerprint(fingerprint), time, readable: exact + late, untimed });
                }
            }
            Self { options, truth, now: 0, rng, pages: 0, arrivals_while_reading: 0, readable_before: 0 }
        }

        fn unit_of(paging: Paging) -> Millis {
            if paging == Paging::Tokens { 1000 } else { 1 }
        }

        pub(crate) fn rules(&self) -> Rules {
            let (paging, page_limit) = (self.options.paging, self.options.page_limit);
            Rules { unit: Self::unit_of(paging), paging, page_limit, max_rows: 400, max_bytes: 1 << 20, deepest: 1000 }
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
            let mut listed: Vec<Truth> =
                self.truth.iter().copied().filter(|truth| truth.readable <= self.now && inside(truth.time)).collect();
            if request.position != Position::First && listed.len() > self.readable_before {
                self.arrivals_while_reading += 1;
            }
            self.readable_before = listed.len();
            // Ties go by when they became readable, as in a real index.
            listed.sort_by_key(|truth| (truth.time, truth.readable));
            match self.options.order {
                Order::Oldest => {}
                Order::Newest => listed.reverse(),
                Order::Unstable => {
                    listed.shuffle(&mut self.rng);
                    listed.sort_by_key(|truth| -truth.time);
                }
                Order::Random => listed.shuffle(&mut self.rng),
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
                Paging::Numbered => Page { records, total: Some(listed.len() as u64), next_token: None },
                Paging::Tokens => {
                    Page { records, total: None, next_token: (to < listed.len()).then(|| to.to_string()) }
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
    WorldOptions {
        seed: 7,
        paging,
        order: Order::Newest,
        exclusive: false,
        rate,
        seconds: 90,
        late_share: 0.0,
        late_most: 1,
        twin_share: 0.0,
        untimed_share: 0.0,
        answer: 0,
        page_limit: 50,
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
        assert_eq!(reading.into_found().len(), truth);
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
    let found: usize = reading.into_found().iter().map(|found| found.raw.len()).sum();
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
        if matches!(request.position, Position::Token(_)) && voided < 4 * MOST_READINGS {
            voided += 1;
            reading.void();
            continue;
        }
        reading.give(world.answer(&request));
    }
    assert_eq!(voided, 4 * MOST_READINGS);
    assert_eq!(reading.end(), Some(End::Complete(Outcome::Reread)));
    let there = world.truth.iter().filter(|truth| unit.contains(truth.time)).count();
    assert!(there > 50, "the seed must put more than a page into the unit");
    assert_eq!(reading.into_found().len(), there);
}

#[test]
fn a_token_that_comes_again_voids_the_run() {
    let mut reading = Reading::new(
        Rules { unit: 1000, paging: Paging::Tokens, page_limit: 50, max_rows: 400, max_bytes: 1 << 20, deepest: 1000 },
        Window { from: 0, to: 60_000 },
        None,
    );
    let page = |token: &str| Page { records: Vec::new(), total: None, next_token: Some(token.to_owned()) };
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
    let rules =
        Rules { unit: 1000, paging: Paging::Tokens, page_limit: 50, max_rows: 400, max_bytes: 1 << 20, deepest: 1000 };
    let mut reading = Reading::new(rules, Window { from: 0, to: 2000 }, None);
    let mut asked = 0;
    while reading.next().is_some() {
        asked += 1;
        assert!(asked < 100_000);
        reading.give(Page { records: Vec::new(), total: None, next_token: Some(asked.to_string()) });
    }
    assert_eq!(reading.end(), Some(End::Complete(Outcome::Unstable)));
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
            readable: 5000 + Millis::from(n),
            ..one
        })
        .collect();
    world.now = 1_000_000;
    let reading = read(&mut world, Window { from: 5000, to: 6000 }, None);
    assert_eq!(reading.end(), Some(End::Complete(Outcome::Reread)));
    assert_eq!(reading.into_found().iter().map(|found| found.raw.len()).sum::<usize>(), 25);
}
