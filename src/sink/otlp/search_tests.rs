//! The search against models of receivers, honest ones and liars: what is bad is found, what is good is delivered, and no
//! good event is given up, in so many requests.
//!
//! The models answer at once and remember nothing but what they took: of real servers, their order, queues and caches,
//! they prove nothing.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use prost::Message;

use super::*;
use crate::encode::otel;
use crate::event::{Source, StreamIdentity};
use crate::sink::otlp::request::Frame;

/// A record whose time is its place.
fn group(range: Range<usize>, live: bool) -> Group {
    let stream = StreamIdentity { source: Source::Genauth, tenant: "t".to_owned() };
    let record = |index: usize| {
        let record = LogRecord { time_unix_nano: index as u64 + 1, ..LogRecord::default() };
        Record { index, time: i64::try_from(index).unwrap(), bytes: record.encode_to_vec() }
    };
    let frame = Frame::new(&otel::resource(&stream, []), &otel::scope());
    Group { frame, records: range.map(record).collect(), live }
}

fn places(request: &[u8]) -> Vec<usize> {
    let request = ExportLogsServiceRequest::decode(request).unwrap();
    let [logs] = request.resource_logs.as_slice() else { panic!("one resource a request") };
    let place = |record: &LogRecord| usize::try_from(record.time_unix_nano).unwrap() - 1;
    logs.scope_logs[0].log_records.iter().map(place).collect()
}

fn refusal(behind: bool) -> Answer {
    let reason = if behind { DeadLetterReason::TooOld } else { DeadLetterReason::Rejected };
    Answer::Refused { reason, message: "no".to_owned(), behind }
}

fn rules(largest: usize, most: usize) -> Rules {
    let seconds = Duration::from_secs;
    Rules { largest, most, request_timeout: seconds(30), give_up_after: seconds(300), old: 0 }
}

fn search(groups: Vec<Group>, largest: usize, most: usize) -> Search {
    Search::new(groups, Vec::new(), rules(largest, most), Known::new(most), Own::default())
}

fn later(reason: SinkReason) -> Answer {
    Answer::Later(OtlpError::new(reason, format!("{reason:?}")))
}

/// What became of a part.
#[derive(Debug)]
struct Ran {
    arrived: BTreeSet<usize>,
    /// How often each came.
    copies: Vec<usize>,
    refused: Vec<Refused>,
    requests: usize,
    took: Duration,
}

/// The waits of a lane, first and longest; a second at least.
const BRIEF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
const SLOW: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// Runs it to the end as a lane does, with its waits and a clock that goes with them;
/// gives up after `most` requests.
fn run_for(mut search: Search, most: usize, mut answer: impl FnMut(&[usize], Duration) -> (Answer, Vec<usize>)) -> Ran {
    let mut now = Duration::ZERO;
    let (mut wait, mut slow) = (BRIEF.0, SLOW.0);
    let mut ran = Ran { arrived: BTreeSet::new(), copies: vec![0; 2000], refused: Vec::new(), requests: 0, took: now };
    loop {
        let result = match search.next(now) {
            Turn::Done => break,
            Turn::Wait(error) => Err(error),
            Turn::Send(request) => {
                let sent = places(&request);
                assert!(sent.is_sorted(), "in time order");
                ran.requests += 1;
                let (answer, taken) = answer(&sent, now);
                if matches!(&answer, Answer::Later(error) if error.reason == SinkReason::Timeout) {
                    now += Duration::from_secs(30) * search.known.pace.patience();
                }
                taken.iter().for_each(|place| ran.copies[*place] += 1);
                ran.arrived.extend(taken);
                search.answered(answer, now)
            }
        };
        if let Err(error) = result {
            if error.progressed || error.asks_on {
                (wait, slow) = (BRIEF.0, SLOW.0);
            }
            let is_slow = error.reason.needs_operator() && !error.asks_on;
            let (curve, cap) = if is_slow { (&mut slow, SLOW.1) } else { (&mut wait, BRIEF.1) };
            now += (*curve).max(error.retry_after.unwrap_or_default());
            *curve = (*curve * 2).min(cap);
        }
        if ran.requests >= most {
            break;
        }
    }
    assert_eq!(search.take_behind().len(), 0);
    ran.took = now;
    ran.refused = search.into_refused();
    ran
}

fn run(search: Search, mut answer: impl FnMut(&[usize]) -> (Answer, Vec<usize>)) -> Ran {
    run_for(search, 1_000_000, |sent, _| answer(sent))
}

fn letters(ran: &Ran) -> BTreeSet<usize> {
    ran.refused.iter().map(|refused| refused.index).collect()
}

fn good(sent: &[usize], bad: &BTreeSet<usize>) -> Vec<usize> {
    sent.iter().copied().filter(|place| !bad.contains(place)).collect()
}

/// As Loki does: 400 if one is bad, and the others are kept.
fn loki(sent: &[usize], bad: &BTreeSet<usize>) -> (Answer, Vec<usize>) {
    let good = good(sent, bad);
    (if good.len() == sent.len() { Answer::Delivered } else { refusal(false) }, good)
}

/// Nothing is kept of a request with a bad record.
fn strict(sent: &[usize], bad: &BTreeSet<usize>) -> (Answer, Vec<usize>) {
    let good = good(sent, bad);
    if good.len() == sent.len() { (Answer::Delivered, good) } else { (refusal(false), Vec::new()) }
}

fn counting(sent: &[usize], bad: &BTreeSet<usize>) -> (Answer, Vec<usize>) {
    let good = good(sent, bad);
    let rejected = (sent.len() - good.len()) as u64;
    (if rejected == 0 { Answer::Delivered } else { Answer::Partial { rejected, message: String::new() } }, good)
}

fn bound(all: usize, bad: usize) -> usize {
    // 1 + 2n·(1 + log2(N ÷ n)), the logarithm rounded up; and the rounds that prove it.
    let depth = all.div_ceil(bad.max(1)).next_power_of_two().trailing_zeros() as usize;
    let rounds = if bad == 0 { 0 } else { 5 + 11 * bad };
    (1 + 2 * bad * (1 + depth)).min(2 * all - 1) + rounds
}

fn seeded(cases: u32) -> ProptestConfig {
    // What rests on chance is the same each time.
    ProptestConfig { cases, max_shrink_iters: 50, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() }
}

proptest! {
    #[test]
    fn what_is_bad_is_found_whatever_the_receiver(all in 2_usize..300, picks in prop::collection::vec(any::<prop::sample::Index>(), 0..40), most in 1_usize..300) {
        // One at least is good: where none is, none is given up.
        let bad: BTreeSet<usize> = picks.iter().map(|pick| pick.index(all)).filter(|pick| *pick != all / 2).collect();
        for receiver in [loki, strict, counting] {
            let ran = run(search(vec![group(0..all, true)], 1 << 20, most), |sent| {
                assert!(sent.len() <= most);
                receiver(sent, &bad)
            });
            prop_assert_eq!(&letters(&ran), &bad);
            prop_assert_eq!(&ran.arrived, &(0..all).filter(|place| !bad.contains(place)).collect::<BTreeSet<_>>());
            if most >= all && bad.len() < all / 2 {
                // Where nothing has passed yet, what follows a few is probed for from the other end.
                prop_assert!(ran.requests <= bound(all, bad.len()) + 40, "{} requests for {} bad of {}", ran.requests, bad.len(), all);
            }
        }
    }

    #[test]
    fn requests_keep_to_their_size(all in 1_usize..200, largest in 60_usize..2_000) {
        let mut search = search(vec![group(0..all, true)], largest, 1000);
        let mut sent = Vec::new();
        while let Turn::Send(request) = search.next(Duration::ZERO) {
            let places = places(&request);
            prop_assert!(request.len() <= largest || places.len() == 1);
            sent.extend(places);
            search.answered(Answer::Delivered, Duration::ZERO).unwrap();
        }
        prop_assert_eq!(sent, (0..all).collect::<Vec<_>>());
    }
}

/// How a model lies, and until when.
#[derive(Debug, Clone)]
enum Lie {
    /// Whatever it is sent, it says this; it may keep it all the same.
    All(Says),
    /// At random, so many of 100 requests.
    Some(Says, u32),
    /// To what has more records.
    Above(Says, usize),
    /// So many refused, by its count, whatever was sent; it keeps all.
    Count(u64),
    /// To what has an event that it took before.
    Had(Says),
    /// In turn: to so many requests of so many.
    Turns(Says, usize, usize),
}

#[derive(Debug, Clone, Copy)]
enum Says {
    Refused,
    TooLarge,
    Load,
    Error,
    Silence,
    Forbidden,
}

impl Says {
    fn answer(self) -> Answer {
        match self {
            Self::Refused => refusal(false),
            Self::TooLarge => Answer::TooLarge { message: "413".to_owned() },
            Self::Load => later(SinkReason::Throttled),
            Self::Error => later(SinkReason::Unavailable),
            Self::Silence => later(SinkReason::Timeout),
            Self::Forbidden => later(SinkReason::Refused),
        }
    }
}

fn says() -> impl Strategy<Value = Says> {
    prop::sample::select(vec![Says::Refused, Says::TooLarge, Says::Load, Says::Error, Says::Silence, Says::Forbidden])
}

fn lie() -> impl Strategy<Value = Lie> {
    prop_oneof![
        says().prop_map(Lie::All),
        (says(), 1_u32..90).prop_map(|(says, share)| Lie::Some(says, share)),
        (says(), 0_usize..30).prop_map(|(says, most)| Lie::Above(says, most)),
        (1_u64..2000).prop_map(Lie::Count),
        says().prop_map(Lie::Had),
        (says(), 1_usize..5, 1_usize..5).prop_map(|(says, lies, others)| Lie::Turns(says, lies, lies + others)),
    ]
}

proptest! {
    #![proptest_config(seeded(1000))]

    /// Liars, for a while or for good, that keep what they were sent or not; some events are truly bad. Once the lie is
    /// over: every good event has arrived, none is a dead letter, every bad one is, and little was sent meanwhile.
    #[test]
    fn liars_cost_time_and_no_event(
        all in 1_usize..120,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        bad_says in says(),
        lie in lie(),
        keeps in any::<bool>(),
        (from, minutes) in (0_u64..30, 0_u64..90),
        seed in any::<u64>(),
    ) {
        // An honest receiver has one good event at least to take.
        let bad: BTreeSet<usize> = picks.iter().map(|pick| pick.index(all)).filter(|pick| *pick != all / 2).collect();
        let (from, until) = (Duration::from_secs(from), Duration::from_secs(60 * minutes));
        let mut random = seed | 1;
        let mut during = 0;
        let mut turn = 0;
        let mut has = BTreeSet::new();
        let ran = run_for(search(vec![group(0..all, true)], 1 << 20, 1000), 8_000, |sent, now| {
            let lies = (from..until).contains(&now) && match &lie {
                Lie::All(_) | Lie::Count(_) => true,
                Lie::Some(_, share) => {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random % 100 < u64::from(*share)
                }
                Lie::Above(_, most) => sent.len() > *most,
                Lie::Turns(_, lies, all) => {
                    turn += 1;
                    turn % all < *lies
                }
                Lie::Had(_) => sent.iter().any(|place| has.contains(place)),
            };
            let keep = |kept: bool| if kept { good(sent, &bad) } else { Vec::new() };
            during += usize::from(lies);
            let (answer, taken) = match &lie {
                _ if !lies && sent.iter().any(|place| bad.contains(place)) => (bad_says.answer(), Vec::new()),
                _ if !lies => (Answer::Delivered, sent.to_vec()),
                Lie::All(says) | Lie::Some(says, _) | Lie::Above(says, _) | Lie::Had(says) | Lie::Turns(says, ..) => {
                    (says.answer(), keep(keeps))
                }
                Lie::Count(rejected) => (Answer::Partial { rejected: *rejected, message: String::new() }, keep(true)),
            };
            has.extend(taken.iter().copied());
            (answer, taken)
        });
        prop_assert!(ran.requests < 8_000, "without end");
        prop_assert_eq!(&letters(&ran), &bad, "{:?}", ran.took);
        let expected: BTreeSet<usize> = (0..all).filter(|place| !bad.contains(place)).collect();
        prop_assert!(ran.arrived.is_superset(&expected), "missing");
        // A lie to all that lasts is asked about once a wait, which grows to 30 s here.
        if matches!(lie, Lie::All(_)) {
            prop_assert!((during as u64) < 160 + 2 * minutes * 4, "{} requests to one that says no to all", during);
        }
    }
}

/// Nodes behind a balancer that answer in turn, some of which refuse whatever they are sent: each event meets another node
/// in the end, and none is given up.
#[test]
fn nodes_in_turn_cost_no_event() {
    for says in [Says::Refused, Says::TooLarge, Says::Error, Says::Forbidden] {
        for (refuse, nodes) in [(1, 2), (1, 3), (2, 3), (1, 4), (2, 4), (3, 4), (1, 5), (2, 5)] {
            for most in [1000, 10, 1] {
                for keeps in [false, true] {
                    let mut turn = 0;
                    let ran = run_for(search(vec![group(0..400, true)], 1 << 20, most), 20_000, |sent, _| {
                        turn += 1;
                        if turn % nodes < refuse {
                            return (says.answer(), if keeps { sent.to_vec() } else { Vec::new() });
                        }
                        (Answer::Delivered, sent.to_vec())
                    });
                    let about = format!("{says:?}, {refuse} of {nodes}, {most} at once, keeps: {keeps}");
                    assert_eq!((letters(&ran).len(), ran.arrived.len()), (0, 400), "{about}");
                    assert!(ran.requests < 20_000, "{about}");
                }
            }
        }
    }
}

/// The numbers that documentation names: bad records spread evenly among 1,000.
#[test]
fn how_many_requests_it_takes() {
    let mut counts = Vec::new();
    for count in [0, 1, 10, 100] {
        let bad: BTreeSet<usize> =
            (0..count).map(|n| n * (1000 / count.max(1)) + 499 % (1000 / count.max(1))).collect();
        assert_eq!(bad.len(), count);
        let ran = run(search(vec![group(0..1000, true)], 1 << 20, 1000), |sent| strict(sent, &bad));
        assert_eq!(letters(&ran), bad, "{count} bad");
        counts.push(ran.requests);
    }
    assert_eq!(counts, [1, 29, 242, 1847]);
}

/// 400 to everything, for as long as one looks: nothing is given up, and few requests a try are sent.
#[test]
fn nothing_is_given_up_where_nothing_passes() {
    for says in [Says::Refused, Says::TooLarge, Says::Load, Says::Error, Says::Silence, Says::Forbidden] {
        for all in [1, 2, 3, 200] {
            let ran =
                run_for(search(vec![group(0..all, true)], 1 << 20, 1000), 500, |_, _| (says.answer(), Vec::new()));
            assert_eq!((ran.requests, letters(&ran).len()), (500, 0), "{says:?}, {all}");
            assert!(ran.took > Duration::from_secs(3600 * 5 / 2), "{says:?}, {all}: {:?}", ran.took);
        }
    }
}

/// A witness of another part of the same receiver will do: so a part of one bad event ends.
#[test]
fn a_part_of_one_bad_event_has_its_witness_from_before() {
    let mut first = search(vec![group(1..2, true)], 1 << 20, 1000);
    assert!(matches!(first.next(Duration::ZERO), Turn::Send(_)));
    first.answered(Answer::Delivered, Duration::ZERO).unwrap();
    for (says, at_least) in [(Says::Refused, 0), (Says::Error, 260), (Says::Silence, 260)] {
        let second = Search::new(
            vec![group(0..1, true)],
            Vec::new(),
            rules(1 << 20, 1000),
            first.known.clone(),
            first.own.clone(),
        );
        let ran =
            run(second, |sent| if sent == [0] { (says.answer(), Vec::new()) } else { (Answer::Delivered, Vec::new()) });
        assert_eq!(letters(&ran), BTreeSet::from([0]));
        assert!(ran.took >= Duration::from_secs(at_least), "{says:?} after {:?}", ran.took);
    }
}

/// One event that makes the receiver fail, whatever it says: all others pass, and it is a dead letter after minutes.
#[test]
fn what_fails_alone_lets_others_pass_and_is_given_up_after_minutes() {
    for says in [Says::Load, Says::Error, Says::Silence, Says::Forbidden] {
        for place in [0, 7, 199] {
            let mut last = Duration::ZERO;
            let mut arrived = BTreeSet::new();
            let ran = run_for(search(vec![group(0..200, true)], 1 << 20, 1000), 10_000, |sent, now| {
                if sent.contains(&place) {
                    return (says.answer(), Vec::new());
                }
                if sent.iter().filter(|place| arrived.insert(**place)).count() > 0 {
                    last = now;
                }
                (Answer::Delivered, sent.to_vec())
            });
            assert_eq!(letters(&ran), BTreeSet::from([place]), "{says:?}");
            assert_eq!(ran.arrived.len(), 199, "{says:?}");
            let rounds = ran.took - last;
            assert!(rounds >= Duration::from_secs(260), "{says:?}: given up after {rounds:?}");
            assert!(ran.requests < 250, "{says:?}: {} requests", ran.requests);
            assert!(last < Duration::from_secs(900), "{says:?}: others waited {last:?}");
        }
    }
}

/// As many as make it look as if nothing passes, from either end, before anything has: they hold up nobody.
#[test]
fn some_that_fail_alone_from_the_first_stop_no_other() {
    for says in [Says::Refused, Says::TooLarge, Says::Load, Says::Error, Says::Silence, Says::Forbidden] {
        for bad in [vec![0, 1, 2], vec![7, 8, 9], vec![0, 1, 2, 7, 8, 9], (1..10).collect(), (0..9).collect()] {
            let bad = BTreeSet::from_iter(bad);
            let ran = run_for(search(vec![group(0..10, true)], 1 << 20, 1000), 2_000, |sent, _| {
                match sent.iter().any(|place| bad.contains(place)) {
                    true => (says.answer(), Vec::new()),
                    false => (Answer::Delivered, sent.to_vec()),
                }
            });
            assert_eq!((letters(&ran), ran.arrived.len()), (bad.clone(), 10 - bad.len()), "{says:?}, {bad:?}");
        }
    }
}

/// An honest receiver but for these; when the first event passed, when the last that is good did, and how it ended.
fn honest(search: Search, all: usize, bad: &BTreeSet<usize>, says: Says) -> (Duration, Duration, Ran) {
    let (mut first, mut last, mut arrived) = (None, Duration::ZERO, BTreeSet::new());
    let ran = run_for(search, 10_000, |sent, now| {
        if sent.iter().any(|place| bad.contains(place)) {
            return (says.answer(), Vec::new());
        }
        first = first.or(Some(now));
        if sent.iter().filter(|place| arrived.insert(**place)).count() > 0 {
            last = now;
        }
        (Answer::Delivered, sent.to_vec())
    });
    assert_eq!((&letters(&ran), arrived.len()), (bad, all - bad.len()), "{says:?}");
    (first.unwrap(), last, ran)
}

/// The bad ones stand together, at the newest end, the oldest, in the middle, or are most: the others wait seconds for what
/// is named, and not much longer for what is not.
#[test]
fn bad_ones_that_stand_together_hold_up_the_others_for_seconds() {
    for says in [Says::Refused, Says::TooLarge, Says::Load, Says::Error, Says::Silence, Says::Forbidden] {
        let most: Vec<usize> = (0..200).filter(|place| place % 7 != 3).collect();
        let together = [0..13, 187..200, 90..110, 0..100, 100..200, 20..200];
        for bad in together.map(Vec::from_iter).into_iter().chain([most]) {
            let bad = BTreeSet::from_iter(bad);
            let (first, last, _) = honest(search(vec![group(0..200, true)], 1 << 20, 1000), 200, &bad, says);
            let named = matches!(says, Says::Refused | Says::TooLarge);
            // A request that is not answered takes half a minute and more by itself, and is sent in eighths.
            // A refusal of all that is sent waits for a person, until something passes.
            let most = match says {
                Says::Silence => 900,
                Says::Forbidden => 150,
                _ => 60,
            };
            assert!(!named || last < Duration::from_secs(20), "{says:?}, {bad:?}: {first:?}, {last:?}");
            // What is refused without a name does not wait as if all were.
            let is_soon = !matches!(says, Says::Error | Says::Forbidden) || last < Duration::from_secs(300);
            assert!(is_soon, "{says:?}, {bad:?}: {first:?}, {last:?}");
            assert!(first < Duration::from_secs(most), "{says:?}, {bad:?}: {first:?}, {last:?}");
        }
    }
}

/// Who refuses what it has already has no witness twice: all good events arrive at once, and bad ones between them are
/// found out by those that it has not had yet.
#[test]
fn who_refuses_what_it_has_gets_all_the_same() {
    for says in [Says::Refused, Says::TooLarge] {
        for bad in [vec![0, 1, 2, 3], vec![40, 41, 42, 43, 44], (0..90).step_by(10).collect()] {
            let bad = BTreeSet::from_iter(bad);
            let (mut last, mut has) = (Duration::ZERO, BTreeSet::new());
            let ran = run_for(search(vec![group(0..100, true)], 1 << 20, 1000), 10_000, |sent, now| {
                if sent.iter().any(|place| bad.contains(place) || has.contains(place)) {
                    return (says.answer(), Vec::new());
                }
                has.extend(sent.iter().copied());
                last = now;
                (Answer::Delivered, sent.to_vec())
            });
            assert_eq!((letters(&ran), ran.arrived.len()), (bad.clone(), 100 - bad.len()), "{says:?}");
            assert!(last < Duration::from_secs(20), "{says:?}, {bad:?}: the last waited {last:?}");
        }
    }
}

/// As many cases as there are: while nothing passes, few requests a try.
#[test]
fn cases_cost_little_while_nothing_passes() {
    for says in [Says::Refused, Says::Error, Says::Silence] {
        let bad: BTreeSet<usize> = (0..56).step_by(2).collect();
        let gone = Duration::from_secs(1800)..Duration::from_secs(3600 * 2);
        let mut during = 0;
        // Doubted, so that cases last.
        let mut search = search(vec![group(0..200, true)], 1 << 20, 1000);
        search.known.doubt(Duration::from_secs(3600 * 3));
        search.rules.give_up_after = Duration::from_secs(3600 * 3);
        let ran = run_for(search, 10_000, |sent, now| {
            if gone.contains(&now) {
                during += 1;
                return (says.answer(), Vec::new());
            }
            match sent.iter().any(|place| bad.contains(place)) {
                true => (says.answer(), Vec::new()),
                false => (Answer::Delivered, sent.to_vec()),
            }
        });
        assert_eq!((letters(&ran), ran.arrived.len()), (bad.clone(), 200 - bad.len()), "{says:?}");
        // A try in 30 s, or in 5 min where a person is waited for: 180, or 18.
        assert!(during > 15 && during < 450, "{says:?}: {during} requests");
    }
}

/// A stream that is refused whole, beside another that passes: by that one's witness one event is given up where there is
/// no other of its own, after the longer time, and no second.
#[test]
fn a_stream_that_is_refused_whole_is_not_given_up_because_another_passes() {
    let mut other = search(vec![group(1000..1001, true)], 1 << 20, 1000);
    assert!(matches!(other.next(Duration::ZERO), Turn::Send(_)));
    other.answered(Answer::Delivered, Duration::ZERO).unwrap();
    let of_other = |sent: &[usize], says: Says| match sent {
        [1000] => (Answer::Delivered, Vec::new()),
        _ => (says.answer(), Vec::new()),
    };
    for says in [Says::Refused, Says::TooLarge, Says::Load, Says::Error, Says::Forbidden] {
        let begin = |all: usize, own: Own| {
            Search::new(vec![group(0..all, true)], Vec::new(), rules(1 << 20, 1000), other.known.clone(), own)
        };
        for all in [2, 100] {
            let ran = run_for(begin(all, Own::default()), 500, |sent, _| of_other(sent, says));
            assert_eq!(letters(&ran), BTreeSet::new(), "{says:?}, {all}");
        }
        let ran = run_for(begin(1, Own::default()), 500, |sent, _| of_other(sent, says));
        assert_eq!(letters(&ran), BTreeSet::from([0]), "{says:?}");
        assert!(ran.took >= Duration::from_secs(260), "{says:?} after {:?}", ran.took);
        let ran = run_for(begin(1, Own { witness: None, has_borrowed: true }), 500, |sent, _| of_other(sent, says));
        assert_eq!(letters(&ran), BTreeSet::new(), "{says:?}: the second");
    }
}

/// It takes at most seven at once, and says so in any way.
#[test]
fn what_is_too_much_at_once_is_less_and_stays_so() {
    for says in [Says::Refused, Says::TooLarge, Says::Load, Says::Error, Says::Silence, Says::Forbidden] {
        let mut known = None;
        for part in 0..2 {
            let mut search = search(vec![group(0..200, true)], 1 << 20, 1000);
            if let Some(known) = known.take() {
                search.known = known;
            }
            let (mut now, mut requests, mut arrived) = (Duration::ZERO, 0, BTreeSet::new());
            while let Turn::Send(request) = search.next(now) {
                let sent = places(&request);
                requests += 1;
                let answer = if sent.len() > 7 { says.answer() } else { Answer::Delivered };
                if sent.len() <= 7 {
                    arrived.extend(sent);
                }
                if search.answered(answer, now).is_err() {
                    now += Duration::from_secs(1);
                }
            }
            assert_eq!(arrived.len(), 200, "{says:?}");
            assert!(requests < 140, "{says:?}, part {part}: {requests} requests");
            known = Some(search.known.clone());
            assert_eq!(search.into_refused(), [], "{says:?}");
        }
    }
}

/// It stores, but answers too late: each event is sent a few times, not seventeen.
#[test]
fn a_slow_receiver_that_stores_is_not_flooded() {
    // Seconds for a request, and for each of its records.
    for (fixed, each) in [(40.0, 0.0), (100.0, 0.0), (0.0, 0.05), (20.0, 0.5)] {
        let mut search = search(vec![group(0..1000, true)], 1 << 20, 1000);
        let mut now = Duration::ZERO;
        let mut copies = vec![0; 1000];
        while let Turn::Send(request) = search.next(now) {
            let sent = places(&request);
            sent.iter().for_each(|place| copies[*place] += 1);
            let patience = Duration::from_secs(30) * search.known.pace.patience();
            #[expect(clippy::cast_precision_loss, reason = "thousands")]
            let takes = Duration::from_secs_f64(fixed + each * sent.len() as f64);
            now += takes.min(patience);
            let _ = search.answered(if takes > patience { later(SinkReason::Timeout) } else { Answer::Delivered }, now);
        }
        let (most, sum) = (copies.iter().max().unwrap(), copies.iter().sum::<usize>());
        assert!(*most <= 6 && sum <= 3500, "{fixed} + {each}: at most {most}, {sum} in all");
        assert_eq!(search.into_refused(), []);
    }
}

/// The balancer of which eight of nine nodes say 429.
#[test]
fn a_balancer_of_tired_nodes_costs_no_event() {
    let mut random = 1_u64;
    let ran = run_for(search(vec![group(0..50, true)], 1 << 20, 1000), 100_000, |sent, _| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if !(random >> 33).is_multiple_of(9) {
            (later(SinkReason::Throttled), Vec::new())
        } else {
            (Answer::Delivered, sent.to_vec())
        }
    });
    assert_eq!((ran.arrived.len(), letters(&ran).len()), (50, 0));
}

/// Each event is too old, which it is; or it is not, and then nobody is believed.
#[test]
fn that_an_old_event_is_too_old_needs_no_witness() {
    for (old, given_up) in [(i64::MAX, 20), (0, 0)] {
        let rules = Rules { old, ..rules(1 << 20, 1000) };
        let search = Search::new(vec![group(0..20, false)], Vec::new(), rules, Known::new(1000), Own::default());
        let ran = run_for(search, 200, |_, _| (refusal(true), Vec::new()));
        assert_eq!(letters(&ran).len(), given_up);
        assert!(ran.refused.iter().all(|one| one.reason == DeadLetterReason::TooOld));
    }
}

#[test]
fn a_failure_loses_nothing_that_is_known() {
    let zero = Duration::ZERO;
    let mut search = search(vec![group(0..8, true)], 1 << 20, 4);
    let next = |search: &mut Search| match search.next(zero) {
        Turn::Send(request) => places(&request),
        other => panic!("{other:?}"),
    };
    assert_eq!(next(&mut search), [0, 1, 2, 3]);
    search.answered(Answer::Delivered, zero).unwrap();
    assert_eq!(next(&mut search), [4, 5, 6, 7]);
    search.answered(later(SinkReason::Connect), zero).unwrap_err();
    assert_eq!(next(&mut search), [4, 5, 6, 7], "again, and the first four are not");
    assert_eq!(next(&mut search), [4, 5, 6, 7], "again, as nobody has answered");
    search.answered(Answer::Delivered, zero).unwrap();
    assert_eq!(search.next(zero), Turn::Done);
}

#[test]
fn what_the_live_stream_has_left_behind_is_tried_as_backfill_once() {
    let zero = Duration::ZERO;
    let mut search = Search::new(
        vec![group(0..2, true)],
        Vec::new(),
        Rules { old: i64::MAX, ..rules(1 << 20, 1) },
        Known::new(1),
        Own::default(),
    );
    for _ in 0..2 {
        assert!(matches!(search.next(zero), Turn::Send(_)));
        search.answered(refusal(true), zero).unwrap();
    }
    assert_eq!(search.next(zero), Turn::Done);
    assert_eq!(search.take_behind().len(), 2);
    search.add(vec![group(0..2, false)]);
    assert!(matches!(search.next(zero), Turn::Send(_)));
    search.answered(Answer::Delivered, zero).unwrap();
    assert!(matches!(search.next(zero), Turn::Send(_)));
    search.answered(refusal(true), zero).unwrap();
    assert_eq!(search.next(zero), Turn::Done);
    assert_eq!(search.take_behind().len(), 0);
    let refused = search.into_refused();
    assert_eq!((refused.len(), refused[0].index, refused[0].reason), (1, 1, DeadLetterReason::TooOld));
}
