use proptest::prelude::*;

use super::*;

/// A time of this century; steady time begins here.
pub const START: Millis = 1_795_600_000_000;

/// What one answer says: `off` is how wrong its node's clock is, and it takes `there` and `back` ms.
pub fn answer(now: Millis, off: i64, there: i64, back: i64) -> Dated {
    let date = (now + there + off).div_euclid(1000) * 1000;
    Dated { date, sent: now, received: now + there + back }
}

pub fn record(number: u64) -> Fingerprint {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Fingerprint(bytes)
}

/// The server's true clock is `truth` ahead of steady time; it is asked every `every` ms and tells what is right.
struct Told {
    estimate: Estimate,
    truth: i64,
    now: Millis,
    records: u64,
}

impl Told {
    fn new(wall: i64, truth: i64) -> Self {
        Self { estimate: Estimate::new(wall, START), truth, now: START, records: 0 }
    }

    fn answers(&mut self, seconds: i64, off: i64, wall: i64) -> &mut Self {
        for _ in 0..seconds {
            self.now += 997;
            self.estimate.observe(answer(self.now, self.truth + off, 3, 4), wall);
            self.now += 7;
        }
        self
    }

    fn undated(&mut self, answers: i64) -> &mut Self {
        for _ in 0..answers {
            self.now += 1_000;
            self.estimate.observe_undated(self.now);
        }
        self
    }

    fn lists(&mut self, count: u64) -> &mut Self {
        for _ in 0..count {
            self.records += 1;
            // Each was listed within two seconds.
            self.estimate
                .witness(record(self.records), self.truth - 100 - i64::try_from(self.records % 19).unwrap() * 100);
        }
        self
    }

    /// How far `sure` is ahead of the true time, and `latest`.
    fn off(&self) -> (i64, i64) {
        let Now { sure, latest, .. } = self.estimate.now(self.now);
        (sure - self.now - self.truth, latest - self.now - self.truth)
    }
}

/// Within the second that a `Date` has, and never ahead.
fn is_right(off: i64) -> bool {
    (-1_100..=0).contains(&off)
}

/// Within that second, as a clock that is wrong may be.
fn is_about(off: i64) -> bool {
    (-1_100..=1_100).contains(&off)
}

#[test]
fn clocks_that_agree_are_known_to_a_fraction_of_a_second() {
    let mut told = Told::new(300, 0);
    told.answers(50, 0, 300);
    assert!((-30..=0).contains(&told.off().0), "{:?}", told.off());
    // A wall clock that is 7 s behind says nothing of that by chance.
    let mut told = Told::new(0, 7_300);
    told.answers(50, 0, 7_300);
    assert!((-1_100..=0).contains(&told.off().0), "{:?}", told.off());
    let offset = told.estimate.offset(0).unwrap();
    assert!((6_200..=7_300).contains(&offset), "{offset}");
    assert_eq!(told.estimate.offset(7_300), Some(0));
}

#[test]
fn one_answer_that_is_ahead_changes_nothing() {
    for ahead in [60_000, 8 * 3_600_000, 86_400_000 * 3650] {
        let mut told = Told::new(0, 0);
        told.answers(10, 0, 0).answers(1, ahead, 0);
        assert!(is_right(told.off().0) && is_right(told.off().1), "{:?}", told.off());
        let doubt = told.estimate.doubt(told.now).expect("is told");
        assert!(!doubt.lasts && doubt.message.contains(" s ahead of"), "{doubt:?}");
        told.answers(61, 0, 0);
        assert_eq!(told.estimate.doubt(told.now), None, "is over");
    }
}

#[test]
fn a_long_lie_ahead_is_read_beyond_and_moves_nothing() {
    let mut told = Told::new(0, 0);
    told.answers(10, 0, 0).lists(20).answers(3_600, 86_400_000, 0).lists(20);
    let (sure, latest) = told.off();
    assert!(is_right(sure), "{sure}");
    assert!(is_about(latest - 86_400_000), "{latest}");
    assert!(told.estimate.doubt(told.now).is_some_and(|doubt| doubt.lasts));
}

#[test]
fn behind_counts_at_once_and_is_forgotten() {
    let mut told = Told::new(0, 0);
    told.answers(10, 0, 0).answers(1, -3_600_000, 0);
    assert!(is_about(told.off().0 + 3_600_000) && is_right(told.off().1), "{:?}", told.off());
    told.answers(301, 0, 0);
    assert!(is_right(told.off().0), "{:?}", told.off());
    assert_eq!(told.estimate.doubt(told.now), None);
}

#[test]
fn records_say_that_a_clock_behind_them_is_wrong() {
    let mut told = Told::new(0, 0);
    told.answers(10, 0, 0).lists(4).answers(100, -3_600_000, 0);
    assert!(is_about(told.off().0 + 3_600_000), "four records may all be absurd");
    told.lists(1);
    assert!(is_right(told.off().0), "{:?}", told.off());
    // A minute is too little to be told by them: their times and the API's may differ by that.
    told.answers(1, -30_000, 0);
    assert!(is_about(told.off().0 + 30_000), "{:?}", told.off());
}

#[test]
fn a_machine_that_slept_finds_both_clocks_ahead() {
    let mut told = Told::new(0, 0);
    told.answers(10, 0, 0);
    told.truth = 7_200_000;
    told.answers(29, 0, 7_200_000);
    assert!(is_about(told.off().0 + 7_200_000) && is_right(told.off().1), "{:?}", told.off());
    told.answers(3, 0, 7_200_000);
    assert!(is_right(told.off().0), "{:?}", told.off());
    assert_eq!(told.estimate.doubt(told.now), None);
}

#[test]
fn without_a_wall_clock_records_bear_an_advance_out_as_far_as_they_reach() {
    // This machine's clock is 7 minutes behind, and stays so.
    let mut told = Told::new(-420_000, 0);
    told.answers(60, 0, -420_000);
    assert!(is_about(told.off().0 + 420_000) && is_right(told.off().1), "{:?}", told.off());
    told.lists(4).answers(60, 0, -420_000);
    assert!(is_about(told.off().0 + 420_000), "four are none: {:?}", told.off());
    told.lists(20).answers(1, 0, -420_000);
    assert!((-2_200..=0).contains(&told.off().0), "{:?}", told.off());
    // Records whose time is absurd bear nothing out beyond what the server says, which is the truth.
    for number in 100..110 {
        told.estimate.witness(record(number), 3_600_000);
    }
    told.answers(60, 0, -420_000);
    assert!(told.off().0 <= 0, "{:?}", told.off());
}

#[test]
fn records_that_come_up_to_a_lower_clock_bear_it_out() {
    // This machine's clock is an hour ahead, and stays so.
    let mut told = Told::new(3_600_000, 0);
    told.answers(60, 0, 3_600_000);
    assert!(is_about(told.off().0) && is_about(told.off().1 - 3_600_000), "{:?}", told.off());
    told.lists(20).answers(40, 0, 3_600_000);
    assert!(is_right(told.off().0) && is_right(told.off().1), "{:?}", told.off());
    assert_eq!(told.estimate.doubt(told.now), None);
    // Records that reach beyond it do not.
    let mut told = Told::new(0, 0);
    told.lists(20).answers(60, -30_000, 0);
    assert!(is_right(told.off().1), "{:?}", told.off());
}

#[test]
fn the_lower_of_two_nodes_counts() {
    for apart in [500, 3_000, 30_000] {
        for ahead in [0, apart] {
            // This machine agrees with either.
            let mut told = Told::new(ahead, 0);
            told.answers(1, 0, ahead);
            for _ in 0..100 {
                told.answers(1, 0, ahead).answers(2, apart, ahead);
            }
            let (sure, _) = told.off();
            assert!((-1_100..=60).contains(&sure), "{sure} for nodes {apart} apart, wall {ahead}");
        }
    }
}

#[test]
fn no_year_is_believed_that_no_clock_shows() {
    let mut told = Told::new(0, 0);
    for date in [253_402_300_799_000, 0, -1, Millis::MAX, Millis::MIN, 7_258_118_400_000] {
        told.answers(3, 0, 0);
        told.estimate.observe(Dated { date, sent: told.now, received: told.now }, 0);
        assert!(is_right(told.off().0) && is_right(told.off().1));
        assert!(told.estimate.doubt(told.now).is_some_and(|doubt| doubt.message.contains("no year")));
    }
}

#[test]
fn a_machine_that_was_never_set_believes_the_first_answer() {
    let mut told = Told::new(-START, 0);
    assert!(!told.estimate.is_founded());
    told.answers(1, 0, -START);
    assert!(told.estimate.is_founded() && is_right(told.off().0));
}

#[test]
fn memory_is_bounded() {
    let mut told = Told::new(0, 0);
    for n in 0..10_000 {
        told.answers(1, (n * 7_919_777) % 3_600_000 - 1_800_000, 0);
        assert!(told.estimate.claims.len() <= CLAIMS);
    }
    assert!(told.off().0 <= 0);
    told.lists(1_000);
    assert!(told.estimate.witnesses.len() <= WITNESSES);
}

/// An answer that was there at once, `off` from steady time.
fn at_once(now: Millis, off: i64) -> Dated {
    Dated { date: now + off, sent: now, received: now }
}

#[test]
fn a_stream_that_is_polled_rarely_does_not_forget_between_two_answers() {
    for (every, rest) in [(600_000, 8), (10_000, 30)] {
        let mut told = Told::new(0, 0);
        told.answers(10, 0, 0).answers(1, -3_600_000, 0);
        for answer in 1..=rest {
            told.now += every;
            told.estimate.observe(at_once(told.now, 0), 0);
            assert!(is_about(told.off().0 + 3_600_000), "{answer} at {every}: {:?}", told.off());
        }
        told.now += every;
        told.estimate.observe(at_once(told.now, 0), 0);
        assert!(is_right(told.off().0), "{every}: {:?}", told.off());
        assert!(told.estimate.claims.is_empty(), "nor is it kept");
    }
}

#[test]
fn a_doubt_says_how_far_how_long_and_whether_it_lasts() {
    let said = |told: &Told| {
        let doubt = told.estimate.doubt(told.now).unwrap();
        (doubt.lasts, doubt.message)
    };
    let mut told = Told::new(0, 0);
    told.answers(10, 0, 0);
    told.estimate.observe(at_once(told.now, -7_200_500), 0);
    told.now += 10_500;
    let (lasts, message) = said(&told);
    let says = |message: &str, parts: &[&str]| parts.iter().all(|part| message.contains(part));
    assert!(!lasts && says(&message, &["is 7199 s behind", "said 10 s ago", "answers of 300 s"]), "{message}");
    told.estimate.observe(at_once(told.now, -7_200_500), 0);
    assert!(said(&told).0);
    // Dates of no year: one, another within a minute, and one when that is forgotten.
    let mut told = Told::new(0, 0);
    for (pause, lasts) in [(0, false), (60_000, true), (60_001, false)] {
        told.now += pause;
        told.estimate.observe(Dated { date: 0, ..at_once(told.now, 0) }, 0);
        assert_eq!(said(&told).0, lasts, "{pause}");
    }
    told.now += 10_500;
    assert!(says(&said(&told).1, &["said 10 s ago", "answers of 60 s"]));
    // Clocks that are five seconds apart are near enough.
    let mut told = Told::new(0, 0);
    told.estimate.observe(at_once(told.now, -7_000), 0);
    assert_eq!((told.estimate.established(), told.estimate.doubt(told.now)), (-1_000, None));
    let mut told = Told::new(0, 0);
    told.estimate.observe(at_once(told.now, -7_001), 0);
    assert!(told.estimate.doubt(told.now).is_some());
}

#[test]
fn the_first_answer_says_how_far_a_wall_clock_may_be_ahead() {
    let mut told = Told::new(300, 0);
    assert_eq!(told.estimate.established(), -700);
    told.estimate.observe(Dated { date: START, sent: START + 890, received: START + 900 }, 300);
    assert_eq!(told.estimate.established(), -900);
    told.estimate.observe(Dated { date: START, sent: START + 890, received: START + 950 }, 300);
    assert_eq!(told.estimate.established(), -900, "later ones only tell more");
}

#[test]
fn the_lowest_of_all_claims_counts_as_far_as_it_may_mean() {
    let mut told = Told::new(0, 0);
    told.answers(10, 0, 0);
    told.estimate.observe(at_once(told.now, -7_200_000), 0);
    told.estimate.observe(at_once(told.now, -3_600_000), 0);
    assert_eq!(told.off().0, -7_200_000);
}

#[test]
fn three_answers_over_half_a_minute_agree() {
    let slept = 7_200_000;
    for (third, agreed) in [(30_000, true), (29_999, false)] {
        let mut told = Told::new(0, 0);
        told.answers(10, 0, 0);
        let start = told.now;
        for after in [0, third] {
            told.now = start + after;
            told.estimate.observe(at_once(told.now, slept), slept);
            assert!(is_right(told.off().0), "two are too few");
        }
        told.estimate.observe(at_once(told.now, slept), slept);
        assert_eq!(is_about(told.off().0 - slept), agreed, "{third}");
    }
}

#[test]
fn clocks_that_drift_apart_are_followed_no_faster_than_clocks_drift() {
    let followed = |passed: Millis, wall: i64| {
        let mut told = Told::new(0, 0);
        told.answers(10, 0, 0);
        told.now += passed;
        told.truth = -1_500;
        told.answers(40, 0, wall);
        let established = told.estimate.established();
        assert!(is_about(established) || is_about(established + 1_500));
        established < -1_400
    };
    // In 50 minutes they may be 2 seconds apart, in 8 minutes not even one and a half.
    assert!(followed(3_000_000, 100_000));
    assert!(!followed(500_000, 100_000));
    assert!(!followed(3_000_000, 1_800), "this machine's clock bears the established one out");
}

#[test]
fn records_bear_clocks_out_that_are_behind_steady_time() {
    let mut told = Told::new(3_600_000, -100_000);
    told.answers(60, 0, 3_600_000).lists(20).answers(40, 0, 3_600_000);
    assert!(is_right(told.off().0) && is_right(told.off().1), "{:?}", told.off());
    let mut told = Told::new(-100_000, -100_000);
    told.answers(10, 0, -100_000).lists(5).answers(100, -3_600_000, -100_000);
    assert!(is_right(told.off().0), "{:?}", told.off());
}

#[test]
fn records_at_the_edge_of_what_is_established_prove_no_more() {
    let witnessed = || {
        let mut told = Told::new(0, 0);
        (0..5).for_each(|number| told.estimate.witness(record(number), 0));
        told
    };
    let mut told = witnessed();
    for after in [0, 15_000, 15_000] {
        told.now += after;
        told.estimate.observe(at_once(told.now, 600_000), 0);
    }
    assert_eq!(told.estimate.established(), -1_000);
    // A minute behind them is no more than their times and the API's may differ by.
    for (behind, sure) in [(61_000, -61_000), (61_001, -1_000)] {
        let mut told = witnessed();
        told.estimate.observe(at_once(told.now, -behind), 0);
        assert_eq!(told.off().0, sure);
    }
}

/// What a part of the world does for some seconds.
#[derive(Debug, Clone)]
pub struct Spell {
    pub seconds: i64,
    /// Between two answers.
    pub every: i64,
    /// By how much the nodes are off that answer in turn.
    pub nodes: Vec<i64>,
    /// By how much the wall clock is off.
    pub wall: i64,
    /// Records that happen a second.
    pub records: u64,
    /// And how far ahead they say that it is.
    pub absurd: Option<i64>,
}

impl Spell {
    /// A wall clock and servers that lie alike for half a minute cannot be told from a machine that slept: it does not.
    pub fn wall(&self) -> i64 {
        let alike = |off: &i64| *off != 0 && (self.wall - off).abs() < 5_000;
        // Nor is it off by less than two clocks may be that bear each other out.
        if self.wall.abs() < 5_000 || self.nodes.iter().any(alike) { 0 } else { self.wall }
    }
}

fn offset() -> impl Strategy<Value = i64> {
    prop_oneof![
        3 => Just(0),
        2 => -5_000_i64..5_000,
        2 => -100_000_i64..100_000,
        2 => -90_000_000_i64..90_000_000,
        1 => Just(315_360_000_000),
        1 => Just(-315_360_000_000),
        1 => Just(250_000_000_000_000),
    ]
}

pub fn spell() -> impl Strategy<Value = Spell> {
    (
        1_i64..200,
        200_i64..20_000,
        prop::collection::vec(offset(), 1..4),
        offset(),
        0_u64..4,
        prop::option::of(0_i64..1_000_000),
    )
        .prop_map(|(seconds, every, nodes, wall, records, absurd)| Spell {
            seconds,
            every,
            nodes,
            wall,
            records,
            absurd,
        })
}

/// Lives through the spells, and says the furthest that marks could have been ahead.
fn live(told: &mut Told, spells: &[Spell]) -> i64 {
    let mut furthest = i64::MIN;
    for spell in spells {
        let end = told.now + spell.seconds * 1000;
        let mut turn = 0;
        let wall = spell.wall();
        while told.now < end {
            told.now += spell.every;
            let off = spell.nodes[turn % spell.nodes.len()];
            turn += 1;
            told.estimate.observe(answer(told.now, told.truth + off, 20, 30), wall);
            told.now += 50;
            told.lists(spell.records.min(u64::try_from(spell.every / 1000).unwrap_or(0) * spell.records));
            if let Some(absurd) = spell.absurd {
                // Always the same few: the newest, in each listing.
                for number in 0..4 {
                    told.estimate.witness(record(u64::MAX - number), told.truth + absurd);
                }
            }
            furthest = furthest.max(told.off().0);
        }
    }
    furthest
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Whatever answers say, and however the wall clock steps: marks are never ahead of the true time, and once the lies
    /// are over they are where they belong.
    #[test]
    fn lies_move_no_mark_ahead_and_are_over_when_they_are_over(spells in prop::collection::vec(spell(), 1..8)) {
        let mut told = Told::new(0, 0);
        let furthest = live(&mut told, &spells);
        // A wall clock that is right is so to the millisecond here.
        prop_assert!(furthest <= 0, "{furthest} ms ahead");
        told.answers(330, 0, 0);
        prop_assert!(is_right(told.off().0) && is_about(told.off().1), "{:?}", told.off());
        prop_assert_eq!(told.estimate.doubt(told.now), None);
    }

    /// A wall clock that is wrong from the start while the servers are right.
    #[test]
    fn a_wrong_wall_clock_moves_no_mark_ahead(wall in offset(), seconds in 1_i64..400, records in 0_u64..3) {
        let mut told = Told::new(wall, 0);
        for second in 0..seconds {
            told.answers(1, 0, wall).lists(records);
            // One answer leaves a second of doubt, many leave next to none.
            let most = if second < 260 { 1_010 } else { 60 };
            prop_assert!(told.off().0 <= most, "{:?} after {second} s", told.off());
        }
        if records > 0 && seconds > 60 {
            prop_assert!((-3_000..=1_010).contains(&told.off().0), "{:?}", told.off());
        }
        prop_assert!(told.off().1 >= -1_100 || seconds < 2, "what is readable is read: {:?}", told.off());
    }

    #[test]
    fn while_nobody_lies_the_estimate_is_right(
        truth in -3_000_i64..3_000, exchanges in prop::collection::vec((1_i64..20_000, 0_i64..3_000, 0_i64..3_000), 40..200),
    ) {
        let mut told = Told::new(truth, truth);
        for (pause, there, back) in exchanges {
            told.now += pause;
            told.estimate.observe(answer(told.now, told.truth, there, back), truth);
            told.now += there + back;
            let (sure, latest) = told.off();
            prop_assert!(sure <= 0 && sure >= -there - back - 1_001, "{sure}");
            prop_assert!(latest <= 0, "{latest}");
        }
    }
}

#[test]
fn without_a_date_the_wall_clock_is_all_there_is_and_that_is_told() {
    // An hour behind: marks stay there, and what lies beyond is read.
    let mut told = Told::new(-3_600_000, 0);
    told.undated(7);
    assert_eq!(told.estimate.doubt(told.now), None, "a few are nothing");
    assert!(told.off().1 < 0, "{:?}", told.off());
    told.undated(1);
    let doubt = told.estimate.doubt(told.now).expect("told");
    assert!(doubt.lasts && doubt.message.contains("Where it is behind, what lies"), "{doubt:?}");
    told.lists(20);
    let (sure, latest) = told.off();
    assert!(is_about(sure + 3_600_000) && is_about(latest + 3_600_000 - UNDATED_BEHIND), "{sure} {latest}");
    let doubt = told.estimate.doubt(told.now).expect("told");
    assert!(doubt.message.contains("behind (it is: records are 359"), "{doubt:?}");
    // Once there is a `Date` it counts as ever.
    told.answers(60, 0, -3_600_000);
    let (sure, latest) = told.off();
    assert!(is_about(latest) && sure <= 0, "{sure} {latest}");

    // An API that refuses what has not been yet is not asked for it again and again; one that refuses everything is.
    let mut told = Told::new(0, 0);
    told.undated(8);
    for refusals in 1..=4 {
        for _ in 0..5 {
            told.estimate.observe_refusal(told.now + 3_600_000, told.now);
            told.estimate.observe_refusal(told.now - 3_600_000, told.now);
        }
        told.undated(1);
        assert_eq!(told.off().1 > 0, refusals < 3, "{refusals}: {:?}", told.off());
    }

    // It was known once: nothing is read beyond, and it is told when it has lasted.
    let mut told = Told::new(0, 0);
    told.answers(10, 0, 0);
    told.undated(300);
    assert_eq!(told.estimate.doubt(told.now), None);
    told.undated(1);
    assert!(is_right(told.off().0) && is_right(told.off().1), "{:?}", told.off());
    let doubt = told.estimate.doubt(told.now).expect("told");
    assert!(doubt.message.contains("have had no Date that can be read for 300 s"), "{doubt:?}");
    told.answers(1, 0, 0);
    assert_eq!(told.estimate.doubt(told.now), None);
}

#[test]
fn without_a_date_records_say_that_the_wall_clock_is_behind() {
    for (newer, is_behind) in [(NEAR, false), (NEAR + 1, true)] {
        let mut told = Told::new(0, 0);
        told.undated(8);
        (0..5).for_each(|number| told.estimate.witness(record(number), newer));
        let doubt = told.estimate.doubt(told.now).expect("told");
        assert_eq!(doubt.message.contains("it is: records are 2 s newer"), is_behind, "{doubt:?}");
    }
}

#[test]
fn a_refusal_counts_of_what_lies_further_beyond_than_clocks_that_agree_are_apart() {
    for beyond in [APART, APART + 1] {
        let mut told = Told::new(0, 0);
        told.undated(8);
        for _ in 0..3 {
            let to = told.now + told.estimate.established() + beyond;
            told.estimate.observe_refusal(to, told.now);
            told.undated(1);
        }
        assert_eq!(told.off().1 > 0, beyond == APART, "{beyond}: {:?}", told.off());
    }
}
