//! The search against a model of a receiver: what is bad is found, what is good is delivered, in so many requests.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use proptest::prelude::*;
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

/// Runs it to the end; what arrived, what was refused, and the number of requests.
fn run(
    mut search: Search,
    mut answer: impl FnMut(&[usize]) -> (Answer, Vec<usize>),
) -> (BTreeSet<usize>, Vec<Refused>, usize) {
    let (mut arrived, mut requests) = (BTreeSet::new(), 0);
    while let Some(request) = search.next() {
        let sent = places(&request);
        assert!(sent.is_sorted(), "in time order");
        requests += 1;
        let (answer, taken) = answer(&sent);
        arrived.extend(taken);
        // Waiting is the lane's.
        let _ = search.answered(answer);
    }
    assert_eq!(search.take_behind().len(), 0);
    (arrived, search.into_refused(), requests)
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
    // 1 + 2n·(1 + log2(N ÷ n)), the logarithm rounded up.
    let depth = all.div_ceil(bad.max(1)).next_power_of_two().trailing_zeros() as usize;
    (1 + 2 * bad * (1 + depth)).min(2 * all - 1)
}

proptest! {
    #[test]
    fn what_is_bad_is_found_whatever_the_receiver(all in 1_usize..300, picks in prop::collection::vec(any::<prop::sample::Index>(), 0..40), most in 1_usize..300) {
        let bad: BTreeSet<usize> = picks.iter().map(|pick| pick.index(all)).collect();
        for receiver in [loki, strict, counting] {
            let search = Search::new(vec![group(0..all, true)], Vec::new(), 1 << 20, most);
            let (arrived, refused, requests) = run(search, |sent| {
                assert!(sent.len() <= most);
                receiver(sent, &bad)
            });
            prop_assert_eq!(refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), bad.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(arrived, (0..all).filter(|place| !bad.contains(place)).collect::<BTreeSet<_>>());
            if most >= all {
                prop_assert!(requests <= bound(all, bad.len()), "{} requests for {} bad of {}", requests, bad.len(), all);
            }
        }
    }

    #[test]
    fn requests_keep_to_their_size(all in 1_usize..200, largest in 60_usize..2_000) {
        let mut search = Search::new(vec![group(0..all, true)], Vec::new(), largest, 1000);
        let mut sent = Vec::new();
        while let Some(request) = search.next() {
            let places = places(&request);
            prop_assert!(request.len() <= largest || places.len() == 1);
            sent.extend(places);
            search.answered(Answer::Delivered).unwrap();
        }
        prop_assert_eq!(sent, (0..all).collect::<Vec<_>>());
    }
}

/// The numbers that documentation names: bad records spread evenly among 1,000.
#[test]
fn how_many_requests_it_takes() {
    for (count, expected) in [(0, 1), (1, 13), (10, 117), (100, 735), (1000, 1999)] {
        let bad: BTreeSet<usize> =
            (0..count).map(|n| n * (1000 / count.max(1)) + 499 % (1000 / count.max(1))).collect();
        assert_eq!(bad.len(), count);
        let search = Search::new(vec![group(0..1000, true)], Vec::new(), 1 << 20, 1000);
        let (.., requests) = run(search, |sent| strict(sent, &bad));
        assert_eq!(requests, expected, "{count} bad");
    }
}

#[test]
fn too_large_is_halved_down_to_one() {
    let search = Search::new(vec![group(0..100, true)], Vec::new(), 1 << 20, 1000);
    let (arrived, refused, _) = run(search, |sent| {
        if sent.len() > 30 || sent.contains(&7) {
            (Answer::TooLarge { message: "413".to_owned() }, Vec::new())
        } else {
            (Answer::Delivered, sent.to_vec())
        }
    });
    assert_eq!(arrived.len(), 99);
    assert_eq!((refused.len(), refused[0].index, refused[0].reason), (1, 7, DeadLetterReason::TooLarge));
}

/// 429 for ever, where a request is above the burst: it is halved until it is not.
#[test]
fn what_is_throttled_for_ever_is_halved_and_what_is_not_is_not() {
    let throttled = || Answer::Later(OtlpError::new(SinkReason::Throttled, "429"));
    let search = || Search::new(vec![group(0..64, true)], Vec::new(), 1 << 20, 1000);
    let (arrived, refused, requests) =
        run(
            search(),
            |sent| {
                if sent.len() > 10 { (throttled(), Vec::new()) } else { (Answer::Delivered, sent.to_vec()) }
            },
        );
    assert_eq!((arrived.len(), refused.len()), (64, 0));
    assert!(requests < 40, "{requests}");
    let mut sizes = Vec::new();
    let (arrived, ..) = run(search(), |sent| {
        sizes.push(sent.len());
        if sizes.len() < 3 { (throttled(), Vec::new()) } else { (Answer::Delivered, sent.to_vec()) }
    });
    assert_eq!((arrived.len(), sizes), (64, vec![64, 64, 64]), "it passed by itself");
}

/// 429 to what is above the burst though it is alone, and to everything while there is too much else.
#[test]
fn a_record_that_is_throttled_alone_is_refused_once_that_is_proven() {
    // Records, how many of them a request has at most, those above the burst, the requests that are throttled whatever is
    // in them, and the most requests it takes.
    let rows = [
        (64, 64, vec![7], 0..0, 60),
        (64, 64, vec![0, 63], 0..0, 80),
        (3, 1, vec![0, 1, 2], 0..0, 3 * 240),
        (1, 1, vec![0], 0..0, 240),
        (64, 64, vec![7], 30..60, 120),
        // A load that passes, but for longer than it takes to be suspected.
        (4, 1, vec![], 3..100, 101),
        (64, 64, vec![], 0..100, 200),
        (1, 1, vec![], 0..239, 240),
        (2, 1, vec![], 1..400, 402),
    ];
    for (all, most, large, load, at_most) in rows {
        let name = format!("{large:?} of {all}, load in {load:?}");
        let search = Search::new(vec![group(0..all, true)], Vec::new(), 1 << 20, most);
        let mut request = 0;
        let (arrived, refused, requests) = run(search, |sent| {
            request += 1;
            if load.contains(&(request - 1)) || large.iter().any(|large| sent.contains(large)) {
                (Answer::Later(OtlpError::new(SinkReason::Throttled, "429: too much")), Vec::new())
            } else {
                (Answer::Delivered, sent.to_vec())
            }
        });
        let letters: Vec<usize> = refused.iter().map(|refused| refused.index).collect();
        assert_eq!(letters, large, "{name}");
        assert!(refused.iter().all(|one| one.reason == DeadLetterReason::TooLarge && one.message == "429: too much"));
        assert_eq!(arrived.len(), all - large.len(), "{name}");
        assert!(requests <= at_most, "{name}: {requests}");
    }
}

/// One that is throttled alone holds up all others for three tries.
#[test]
fn a_record_that_is_throttled_alone_lets_others_pass() {
    let search = Search::new(vec![group(0..4, true)], Vec::new(), 1 << 20, 1);
    let mut requests = Vec::new();
    run(search, |sent| {
        requests.push(sent[0]);
        let throttled = Answer::Later(OtlpError::new(SinkReason::Throttled, "429"));
        (if sent == [0] { throttled } else { Answer::Delivered }, sent.to_vec())
    });
    let alone = usize::try_from(ALONE_TRIES).unwrap();
    // At the end the witness.
    assert_eq!(requests, [vec![0; 3], vec![1, 2, 3], vec![0; alone], vec![1]].concat());
}

#[test]
fn a_failure_loses_nothing_that_is_known() {
    let mut search = Search::new(vec![group(0..8, true)], Vec::new(), 1 << 20, 4);
    assert_eq!(places(&search.next().unwrap()), [0, 1, 2, 3]);
    search.answered(Answer::Delivered).unwrap();
    assert_eq!(places(&search.next().unwrap()), [4, 5, 6, 7]);
    search.answered(Answer::Later(OtlpError::new(SinkReason::Connect, "gone"))).unwrap_err();
    assert_eq!(places(&search.next().unwrap()), [4, 5, 6, 7], "again, and the first four are not");
    search.answered(Answer::Delivered).unwrap();
    assert_eq!(search.next(), None);
}

#[test]
fn what_the_live_stream_has_left_behind_is_tried_as_backfill_once() {
    let mut search = Search::new(vec![group(0..2, true)], Vec::new(), 1 << 20, 1);
    for _ in 0..2 {
        search.next().unwrap();
        search.answered(refusal(true)).unwrap();
    }
    assert_eq!(search.next(), None);
    assert_eq!(search.take_behind().len(), 2);
    search.add(vec![group(0..2, false)]);
    search.next().unwrap();
    search.answered(Answer::Delivered).unwrap();
    search.next().unwrap();
    search.answered(refusal(true)).unwrap();
    assert_eq!(search.take_behind().len(), 0);
    let refused = search.into_refused();
    assert_eq!((refused.len(), refused[0].index, refused[0].reason), (1, 1, DeadLetterReason::TooOld));
}
