//! What a reading asks for next, answer by answer: each bound at its edge.

use bytes::Bytes;

use super::tests::world::rules_of;
use super::*;
use crate::page::Position;

/// A record of a time, or of none.
fn record(name: u8, time: impl Into<Option<Millis>>) -> crate::event::Listed {
    let fingerprint = Fingerprint([name; 16]);
    crate::event::Listed { fingerprint, time: time.into(), raw: Bytes::from_static(b"{}") }
}

/// So many records without a time, from this one on.
fn records(from: u8, count: u8) -> Vec<crate::event::Listed> {
    (from..from + count).map(|name| record(name, None)).collect()
}

fn page(records: Vec<crate::event::Listed>) -> Page {
    Page { records, ..Page::default() }
}

fn counted(total: u64, records: Vec<crate::event::Listed>) -> Page {
    Page { total: Some(total), ..page(records) }
}

fn token(token: impl ToString, records: Vec<crate::event::Listed>) -> Page {
    Page { next_token: Some(token.to_string()), ..page(records) }
}

fn numbered() -> Rules {
    rules_of(Paging::Numbered, 50)
}

fn tokens() -> Rules {
    rules_of(Paging::Tokens, 50)
}

fn everywhere(rows: u64, bytes: u64) -> Listed {
    Listed { rows, bytes }
}

fn window(from: Millis, to: Millis) -> Window {
    Window { from, to }
}

/// What is asked for next: the bounds, and whether it is a first page.
fn next(reading: &Reading) -> Option<(Millis, Millis, bool)> {
    reading.next().map(|request| (request.from, request.to, request.position == Position::First))
}

/// Answers to the end; the most records that each run was asked for with.
fn limits_of(reading: &mut Reading, mut answer: impl FnMut(&mut Reading, &PageRequest, usize)) -> Vec<u32> {
    let mut limits = Vec::new();
    let mut asked = 0;
    while let Some(request) = reading.next() {
        asked += 1;
        assert!(asked < 1000, "a reading must end: {reading:?}");
        if request.position == Position::First {
            limits.push(request.limit);
        }
        answer(reading, &request, limits.len());
    }
    limits
}

fn reasons(reading: &Reading) -> Vec<(Millis, Millis, GapReason)> {
    reading.gaps().iter().map(|gap| (gap.from, gap.to, gap.reason)).collect()
}

#[test]
fn a_unit_that_is_refused_is_asked_for_with_fewer_records_and_then_given_up() {
    let mut reading = Reading::new(numbered(), window(0, 2), None);
    assert!(!reading.is_at_a_unit());
    reading.refused();
    assert!(reading.is_at_a_unit(), "shorter intervals first");
    let limits = limits_of(&mut reading, |reading, _, _| reading.refused());
    assert_eq!(limits, [50, 24, 10, 50, 24, 10]);
    assert_eq!(reasons(&reading), [(0, 2, GapReason::Unreadable)]);
    assert_eq!(reading.end(), Some(End::Complete(Outcome::Unstable)));
}

#[test]
fn gaps_apart_or_of_other_reasons_are_told_apart() {
    let mut reading = Reading::new(numbered(), window(0, 4), None);
    limits_of(&mut reading, |reading, request, _| match (request.from, request.to) {
        (0, 2) => drop(reading.give(counted(0, Vec::new()))),
        (2, 4) if request.position == Position::First => drop(reading.give(counted(3, records(0, 2)))),
        (2, 4) => drop(reading.give(counted(3, Vec::new()))),
        _ => reading.refused(),
    });
    let unreadable = [(0, 1, GapReason::Unreadable), (2, 3, GapReason::Unreadable)];
    assert_eq!(
        (&reasons(&reading)[..2], &reasons(&reading)[2..]),
        (&unreadable[..], &[(3, 4, GapReason::Contradiction)][..])
    );
}

#[test]
fn a_page_that_is_too_large_is_asked_for_smaller_before_it_is_cut() {
    let mut reading = Reading::new(numbered(), window(0, 4), None);
    assert_eq!(reading.limit(), 50);
    let mut asked = Vec::new();
    while let Some(request) = reading.next() {
        assert!(asked.len() < 100);
        asked.push((request.from, request.to, request.limit));
        // One record of the first unit is.
        let is_in = request.from < 0 && request.position == Position::First;
        match is_in {
            true => reading.too_large(),
            false => drop(reading.give(counted(0, Vec::new()))),
        }
    }
    let unit = |from: Millis, limit| (from - 1, from + 1, limit);
    let smaller = [(-1, 4, 50), (-1, 4, 25), (-1, 4, 12), (-1, 2, 12)];
    let first = [unit(0, 12), unit(0, 6), unit(0, 3), unit(0, 1), (-1, 1, 1)];
    assert_eq!(asked[..4], smaller);
    assert_eq!(asked[4..9], first, "and the page after the one that cannot be had");
    assert_eq!(reading.limit(), 1);
    assert!(reasons(&reading).contains(&(0, 1, GapReason::TooLarge)));
}

#[test]
fn what_stands_behind_a_record_that_is_too_large_is_read() {
    let answer = |reading: &mut Reading, request: &PageRequest| match (request.limit, &request.position) {
        (2.., _) | (_, Position::Number(2)) => reading.too_large(),
        (_, Position::First) => drop(reading.give(counted(3, vec![record(1, 0)]))),
        (_, Position::Number(3)) => drop(reading.give(counted(3, vec![record(3, 0)]))),
        _ => drop(reading.give(counted(3, Vec::new()))),
    };
    let mut reading = Reading::new(numbered(), window(0, 1), None);
    limits_of(&mut reading, |reading, request, _| answer(reading, request));
    assert_eq!(reasons(&reading), [(0, 1, GapReason::TooLarge)]);
    assert_eq!(reading.into_found().len(), 2);
    // Tokens lead past nothing that was not given.
    let mut reading = Reading::new(tokens(), window(0, 1000), None);
    let limits = limits_of(&mut reading, |reading, _, _| reading.too_large());
    assert_eq!(limits, [50, 25, 12, 6, 3, 1]);
    assert_eq!(reasons(&reading), [(0, 1000, GapReason::TooLarge)]);
}

#[test]
fn pages_that_are_all_too_large_are_not_followed_for_ever() {
    let mut reading = Reading::new(numbered(), window(0, 1), None);
    let mut asked = 0;
    while reading.next().is_some() {
        asked += 1;
        assert!(asked < 1000, "it is asked for ever, and never ends to tell its gap");
        reading.too_large();
    }
    // Down to pages of one record, and then so many of those.
    assert_eq!(asked, 5 + 100);
    assert_eq!(reading.end(), Some(End::Complete(Outcome::Unstable)));
    assert!(reasons(&reading).iter().all(|gap| *gap == (0, 1, GapReason::TooLarge)));
}

#[test]
fn a_run_that_breaks_off_again_is_cut_into_pieces_that_fit_a_page() {
    let rules = Rules { everywhere: everywhere(5, 0), ..tokens() };
    let mut reading = Reading::new(rules, window(0, 90_000), None);
    for (broken, asked) in [(0, (-1000, 90_000)), (1, (-1000, 90_000))] {
        assert_eq!(reading.broken(), broken);
        assert_eq!(next(&reading), Some((asked.0, asked.1, true)));
        reading.give(token("more", records(0, 50)));
        reading.void();
    }
    // 195 rows of its own may be there, 25 of which fit a page beside the 5: eight pieces of eleven seconds.
    assert_eq!((reading.broken(), reading.proven()), (2, 0));
    assert_eq!(next(&reading), Some((-1000, 11_000, true)));
}

#[test]
fn a_run_whose_total_grows_while_a_record_stands_on_two_pages_is_cut_at_once() {
    for (total, cut) in [(160, false), (161, true)] {
        let mut reading = Reading::new(numbered(), window(0, 90), None);
        reading.give(counted(160, records(0, 50)));
        assert_eq!(next(&reading), Some((-1, 90, false)));
        reading.give(counted(total, records(49, 50)));
        // 161 rows, 30 to a page: six pieces.
        assert_eq!(next(&reading), Some(if cut { (-1, 15, true) } else { (-1, 90, false) }));
        if !cut {
            continue;
        }
        // A clock unit cannot be cut: it is followed to its end.
        let mut reading = Reading::new(numbered(), window(0, 1), None);
        reading.give(counted(160, records(0, 50)));
        reading.give(counted(161, records(49, 50)));
        assert_eq!(next(&reading), Some((-1, 1, false)));
    }
}

#[test]
fn a_total_that_grows_cuts_nothing_where_no_record_stands_on_two_pages() {
    for (again, cut) in [(Some(record(1, 7)), true), (None, false)] {
        let mut reading = Reading::new(Rules { page_limit: 2, ..numbered() }, window(0, 90), None);
        reading.give(counted(9, vec![record(0, 5), record(1, 7)]));
        reading.give(counted(10, again.into_iter().chain([record(2, 8), record(3, 8)]).take(2).collect()));
        assert_eq!(next(&reading).is_some_and(|(_, to, first)| first && to < 90), cut);
    }
}

#[test]
fn units_read_alone_must_make_up_what_the_whole_counts() {
    let mut reading = Reading::new(Rules { page_limit: 2, ..numbered() }, window(0, 90), None);
    // One is hidden where the second stands twice.
    reading.give(counted(4, vec![record(0, 5), record(1, 5)]));
    reading.give(counted(4, vec![record(1, 5), record(2, 7)]));
    reading.give(counted(4, Vec::new()));
    assert_eq!(next(&reading), Some((5, 5, true)));
    reading.give(counted(3, vec![record(0, 5), record(1, 5)]));
    reading.give(counted(3, vec![record(3, 5)]));
    assert_eq!(reading.end(), Some(End::Complete(Outcome::Reread)));
    assert_eq!(reading.into_found().len(), 4);
}

#[test]
fn twins_that_come_together_make_up_for_twins_that_do_not() {
    let mut reading = Reading::new(tokens(), window(0, 1000), None);
    reading.give(token("more", [records(0, 2), records(0, 1)].concat()));
    reading.give(page(records(0, 1)));
    assert_eq!((reading.proven(), next(&reading)), (0, Some((-1000, 1000, true))));
    // Two of the first are known, and two of the second are seen now.
    assert_eq!(reading.give(page([records(0, 2), records(1, 1)].concat())), None);
    assert_eq!((reading.proven(), reading.was_contrary()), (1, false));
}

#[test]
fn a_total_that_shrank_proves_nothing() {
    for (before, proven) in [(120, 1), (121, 0)] {
        let mut reading = Reading::new(numbered(), window(0, 90), None);
        reading.give(counted(before, records(0, 50)));
        reading.give(counted(120, records(50, 50)));
        reading.give(counted(120, records(100, 20)));
        assert_eq!(reading.proven(), proven, "what moved up to a page that was read before is hidden");
        assert_eq!(next(&reading).is_none(), proven == 1);
    }
}

#[test]
fn an_empty_page_does_not_show_that_the_full_one_before_it_was_the_last() {
    for (last, proven) in [(50, 0), (49, 1)] {
        let mut reading = Reading::new(tokens(), window(0, 1000), None);
        reading.give(token("more", records(0, last)));
        reading.give(page(Vec::new()));
        assert_eq!(reading.proven(), proven);
    }
}

#[test]
fn a_window_overflows_where_it_holds_more_than_may_be_held_and_no_sooner() {
    let overflows = |rules: Rules, page: Page| {
        let mut reading = Reading::new(rules, window(0, 90), None);
        reading.give(page);
        matches!(reading.end(), Some(End::Overflow { .. }))
    };
    let rows = |everywhere, rows| overflows(Rules { everywhere, ..numbered() }, counted(rows, records(0, 50)));
    assert_eq!((rows(everywhere(0, 0), 400), rows(everywhere(0, 0), 401)), (false, true));
    assert_eq!((rows(everywhere(10, 0), 410), rows(everywhere(10, 0), 411)), (false, true));
    let deep =
        |everywhere, rows| overflows(Rules { everywhere, max_rows: 5000, ..numbered() }, counted(rows, records(0, 50)));
    assert_eq!((deep(everywhere(0, 0), 1000), deep(everywhere(0, 0), 1001)), (false, true));
    assert_eq!((deep(everywhere(999, 0), 1001), deep(everywhere(1000, 0), 1001)), (true, false));
    let bytes = |of, bytes| {
        let rules = Rules { everywhere: everywhere(0, of), max_bytes: 1000, ..numbered() };
        overflows(rules, Page { held: Hold::uncounted(bytes), ..counted(100, records(0, 50)) })
    };
    assert_eq!((bytes(0, 1000), bytes(0, 1001)), (false, true));
    assert_eq!((bytes(100, 1100), bytes(100, 1101)), (false, true));
    // No shorter window would hold less of what every window lists.
    assert_eq!((bytes(500, 1501), bytes(501, 1502)), (true, false));
}

#[test]
fn what_several_runs_have_listed_counts_together() {
    let mut reading = Reading::new(Rules { max_rows: 100, ..tokens() }, window(0, 90_000), None);
    reading.give(token("more", records(0, 50)));
    reading.void();
    reading.give(token("more", records(50, 50)));
    assert_eq!(reading.end(), None);
    reading.void();
    reading.give(page(records(100, 1)));
    assert_eq!(reading.end(), Some(End::Overflow { rows: 1 }));
}

#[test]
fn a_clock_unit_is_outgrown_by_bytes_and_never_too_many_rows() {
    let outgrown = |rules: Rules, to: Millis, bytes: u64| {
        let mut reading = Reading::new(Rules { max_unit_bytes: 1000, ..rules }, window(0, to), None);
        reading.give(Page { held: Hold::uncounted(bytes), ..counted(900, records(0, 50)) });
        reading.end()
    };
    assert_eq!(outgrown(numbered(), 1, 1000), None, "900 rows are more than a longer window may have");
    assert_eq!(outgrown(numbered(), 1, 1001), Some(End::Outgrown));
    let longer = Rules { max_rows: 5000, ..numbered() };
    assert_eq!(outgrown(longer, 2, 1001), None);
    let mostly_everywhere = Rules { everywhere: everywhere(0, 1001), max_bytes: 2001, ..longer };
    assert_eq!(outgrown(mostly_everywhere, 2, 1001), Some(End::Outgrown), "no shorter window holds less");
}

#[test]
fn pages_are_not_followed_deeper_than_the_api_goes() {
    let rules = Rules { deepest: 100, ..tokens() };
    let deep = |rules: Rules, to: Millis, paging: Paging| {
        let mut reading = Reading::new(Rules { paging, unit: 1000, ..rules }, window(0, to), None);
        let more = (paging == Paging::Tokens).then(|| "more".to_owned());
        for (first, more) in [(0, more.clone()), (50, more.map(|more| more + "!"))] {
            assert_eq!(next(&reading), Some((-1000, to, first == 0)));
            reading.give(Page { next_token: more, ..page(records(first, 50)) });
        }
        (next(&reading), reasons(&reading))
    };
    assert_eq!(deep(rules, 2000, Paging::Tokens), (Some((-1000, 1000, true)), vec![]), "cut");
    assert_eq!(deep(rules, 2000, Paging::Numbered), (Some((-1000, 1000, true)), vec![]), "cut");
    let gap = |to| (None, vec![(0, to, GapReason::TooDeep)]);
    assert_eq!(deep(rules, 1000, Paging::Numbered), gap(1000), "a unit cannot be cut");
    // No depth of tokens is documented; what counts a unit's rows is held, though.
    assert_eq!(deep(rules, 1000, Paging::Tokens), (Some((-1000, 1000, false)), vec![]));
    assert_eq!(deep(Rules { max_unit_rows: 100, ..rules }, 1000, Paging::Tokens).0, Some((-1000, 1000, false)));
    assert_eq!(deep(Rules { max_unit_rows: 99, ..rules }, 1000, Paging::Tokens), gap(1000));
    // Where what every window lists is as deep, no piece of it is less so.
    assert_eq!(deep(Rules { everywhere: everywhere(100, 0), ..rules }, 2000, Paging::Tokens), gap(2000));
    assert_eq!(deep(Rules { everywhere: everywhere(99, 0), ..rules }, 2000, Paging::Tokens).1, []);
}

#[test]
fn a_window_is_given_back_after_so_many_pages() {
    let mut reading = Reading::new(tokens(), window(0, 100_000), None);
    let mut asked = 0;
    while reading.next().is_some() {
        asked += 1;
        reading.give(token(asked, Vec::new()));
    }
    assert_eq!((asked, reading.end()), (MOST_PAGES + 1, Some(End::Overflow { rows: 0 })));
}

#[test]
fn a_run_ends_while_it_lists_something_new_on_every_page() {
    let rules = Rules { page_limit: 1, ..tokens() };
    let mut reading = Reading::new(rules, window(0, 1000), None);
    for name in 0..200 {
        assert_eq!(reading.give(token(name, records(name, 1))), None);
    }
    assert_eq!(next(&reading), Some((-1000, 1000, false)));
}

#[test]
fn a_list_that_contradicts_its_total_is_read_again_then_cut_then_given_up() {
    let mut reading = Reading::new(numbered(), window(0, 2), None);
    let limits = limits_of(&mut reading, |reading, request, _| {
        let is_first = request.position == Position::First;
        let breach = reading.give(counted(3, if is_first { records(0, 2) } else { Vec::new() }));
        assert_eq!(breach, (!is_first).then_some(Breach::Contradiction));
        assert!(is_first || reading.was_contrary());
    });
    let unit = [50, 49, 48, 47, 45, 43, 39, 50, 49, 48, 47, 45];
    assert_eq!(limits[..3], [50, 49, 48]);
    assert_eq!((&limits[3..15], &limits[15..]), (&unit[..], &unit[..]));
    assert_eq!(reasons(&reading), [(0, 2, GapReason::Contradiction)]);
    // No more rows than are counted, either.
    let mut reading = Reading::new(numbered(), window(0, 2), None);
    assert_eq!(reading.give(counted(1, records(0, 2))), Some(Breach::Contradiction));
}

/// A unit's reading whose first run leaves one in doubt.
fn doubtful() -> Reading {
    let mut reading = Reading::new(tokens(), window(0, 1000), None);
    reading.give(token("more", records(0, 2)));
    reading.give(page(records(0, 1)));
    assert_eq!(next(&reading), Some((-1000, 1000, true)));
    reading
}

#[test]
fn a_unit_that_lists_less_than_before_is_asked_a_few_times_more() {
    let mut reading = doubtful();
    let breaches = (0..4).map(|_| reading.give(page(records(0, 1)))).collect::<Vec<_>>();
    assert_eq!(breaches, [Some(Breach::Contradiction); 4]);
    assert_eq!(reading.end(), None);
    assert_eq!(reading.give(page(records(0, 1))), None);
    assert_eq!((reading.end(), reading.proven()), (Some(End::Complete(Outcome::Reread)), 0));
    assert!(reading.was_contrary() && reading.gaps().is_empty());
}

#[test]
fn nothing_is_no_answer_of_a_time_that_was_seen() {
    let cut = |time: Millis| {
        let mut reading = Reading::new(tokens(), window(0, 2000), None);
        reading.give(token("more", vec![record(0, time)]));
        reading.refused();
        reading
    };
    let mut seen = cut(0);
    assert_eq!(next(&seen), Some((0, 0, true)));
    assert_eq!(seen.give(page(Vec::new())), None, "it may not be listed alone");
    assert_eq!(next(&seen), Some((-1000, 1000, true)));
    assert_eq!(seen.give(page(Vec::new())), Some(Breach::Contradiction));
    // Of a time that was not seen it is one.
    let mut unseen = cut(1000);
    assert_eq!(next(&unseen), Some((-1000, 1000, true)));
    assert_eq!((unseen.give(page(Vec::new())), unseen.proven()), (None, 1));
}

/// Answers each run with two pages, on both of which the first record stands.
fn in_doubt(reading: &mut Reading, request: &PageRequest, listed: Vec<crate::event::Listed>) {
    match request.position {
        Position::First => drop(reading.give(token("more", listed))),
        _ => drop(reading.give(page(listed.into_iter().take(1).collect()))),
    }
}

#[test]
fn a_unit_in_doubt_counts_after_six_readings_that_show_nothing_new() {
    let runs = |listed: &dyn Fn(usize) -> Vec<crate::event::Listed>, circle: usize| {
        let mut reading = Reading::new(tokens(), window(0, 1000), None);
        let runs = limits_of(&mut reading, |reading, request, run| {
            match run == circle && request.position != Position::First {
                true => drop(reading.give(token("more", Vec::new()))),
                false => in_doubt(reading, request, listed(run)),
            }
        });
        assert_eq!(reading.end(), Some(End::Complete(Outcome::Unstable)));
        runs.len()
    };
    let three = |_| records(0, 3);
    assert_eq!(runs(&three, 0), 7);
    let a_fourth_in_the_sixth = |run| records(0, if run < 6 { 3 } else { 4 });
    assert_eq!(runs(&a_fourth_in_the_sixth, 0), 12);
    // Or a twin that no page had shown beside the other.
    let twins_in_the_sixth = |run| if run < 6 { records(0, 3) } else { [records(0, 3), records(1, 1)].concat() };
    assert_eq!(runs(&twins_in_the_sixth, 0), 12);
    // A run that breaks off is not quiet, and what it shows is new as ever.
    assert_eq!(runs(&three, 3), 8);
    assert_eq!(runs(&a_fourth_in_the_sixth, 6), 12);
    // One more each time: no more readings than this of runs that came to their end.
    let grows = |run| records(0, u8::try_from(run).unwrap());
    assert_eq!((runs(&grows, 0), runs(&grows, 2)), (24, 25));
}

#[test]
fn a_unit_that_never_comes_to_its_end_is_given_up() {
    let mut reading = Reading::new(tokens(), window(0, 1000), None);
    let limits = limits_of(&mut reading, |reading, request, _| {
        let breach = reading.give(token("again", Vec::new()));
        assert_eq!(breach.is_some(), request.position != Position::First);
    });
    assert_eq!((limits.len(), &limits[..3]), (24, &[50, 49, 48][..]));
    assert_eq!(reasons(&reading), [(0, 1000, GapReason::Unreadable)]);
}

#[test]
fn a_unit_that_is_not_listed_alone_is_asked_for_with_its_neighbours() {
    let mut reading = Reading::new(numbered(), window(5, 6), Some(true));
    assert_eq!(next(&reading), Some((5, 5, true)));
    // Nothing of its time, at least.
    reading.give(counted(1, vec![record(1, 7)]));
    assert_eq!(next(&reading), Some((4, 6, true)));
    assert_eq!(reading.inclusive(), Some(true), "one empty unit says nothing of the API");
    reading.give(counted(1, vec![record(1, 7)]));
    assert_eq!((reading.end(), reading.proven()), (Some(End::Complete(Outcome::Complete)), 1));
}

/// Six pages by tokens, two records on each but the last, of whom `twice` stand on two pages: of one second each.
fn with_doubts(rules: Rules, twice: u8, untimed: bool) -> Reading {
    let mut reading = Reading::new(Rules { page_limit: 2, ..rules }, window(0, 90_000), None);
    give_doubts(&mut reading, twice, untimed);
    reading
}

fn give_doubts(reading: &mut Reading, twice: u8, untimed: bool) {
    let time = |name: u8| (!untimed || name != 0).then(|| Millis::from(name) * 1000);
    // The end of each page is the beginning of the next.
    let mut at = 0;
    for number in 0..6 {
        let first = if number > 0 && number <= twice { at - 1 } else { at };
        at = first + 2;
        let listed = (first..at).map(|name| record(name, time(name)));
        let answer = if number < 5 { token(number, listed.collect()) } else { page(listed.take(1).collect()) };
        assert_eq!(reading.give(answer), None);
    }
}

#[test]
fn few_units_in_doubt_are_read_alone_and_many_are_not() {
    let reading = with_doubts(tokens(), 3, false);
    assert_eq!(next(&reading), Some((1000, 1000, true)), "three of six pages");
    let reading = with_doubts(tokens(), 4, false);
    assert_eq!(next(&reading), Some((-1000, 90_000, true)), "the whole again");
}

#[test]
fn what_was_doubted_must_be_listed_again() {
    for (again, ends) in [(true, true), (false, false)] {
        let mut reading = with_doubts(tokens(), 2, false);
        for unit in [1, 2] {
            assert_eq!(next(&reading), Some((unit * 1000, unit * 1000, true)));
            let name = u8::try_from(unit).unwrap() + if again { 0 } else { 100 };
            reading.give(page(vec![record(name, unit * 1000)]));
        }
        assert_eq!(reading.end().is_some(), ends);
        assert_eq!(next(&reading), (!ends).then_some((-1000, 90_000, true)));
    }
}

#[test]
fn doubts_about_no_unit_that_was_asked_for_are_settled_by_none() {
    for elsewhere in [None, Some(200_000), Some(-200_000)] {
        let mut reading = Reading::new(Rules { page_limit: 3, ..tokens() }, window(0, 90_000), None);
        let (nowhere, one) = (record(0, elsewhere), record(1, 1000));
        reading.give(token("more", vec![nowhere.clone(), one.clone(), record(2, 2000)]));
        reading.give(page(vec![nowhere, one]));
        assert_eq!(next(&reading), Some((-1000, 90_000, true)), "{elsewhere:?}");
    }
}

#[test]
fn an_interval_in_doubt_is_read_again_once_and_then_halved() {
    let mut reading = with_doubts(tokens(), 4, false);
    assert_eq!(reading.next().map(|request| request.limit), Some(1));
    give_doubts(&mut reading, 4, false);
    assert_eq!(next(&reading), Some((-1000, 45_000, true)));
    // Halves would list as much where every window lists a page and more of it.
    for (rows, to) in [(1, 45_000), (2, 90_000)] {
        let mut reading = with_doubts(Rules { everywhere: everywhere(rows, 0), ..tokens() }, 4, false);
        give_doubts(&mut reading, 4, false);
        assert_eq!(next(&reading), Some((-1000, to, true)), "{rows} rows in every window");
    }
}

#[test]
fn what_is_listed_again_is_not_held_again() {
    let mut reading = Reading::new(tokens(), window(0, 90_000), None);
    let held = |page: Page| Page { held: Hold::uncounted(100), ..page };
    reading.give(held(token("more", records(0, 3))));
    reading.void();
    reading.give(held(token("more", records(0, 3))));
    assert_eq!(reading.tally.bytes(), 100);
    // A twin that no page had shown beside the other is new.
    reading.give(held(page([records(3, 1), records(3, 1)].concat())));
    assert_eq!(reading.end(), Some(End::Complete(Outcome::Reread)));
    assert_eq!(reading.take_held().bytes(), 200);
    let mut reading = doubtful();
    reading.give(held(page([records(0, 2), records(0, 1)].concat())));
    assert_eq!(reading.take_held().bytes(), 100);
}

#[test]
fn a_part_of_a_window_holds_copies_of_its_own_records_alone() {
    let rules = Rules { shard: Shard { index: 0, of: 2 }, ..tokens() };
    let mut reading = Reading::new(rules, window(0, 90_000), None);
    let listed = [1, 2, 1, 2, 4].map(|name| crate::event::Listed {
        raw: Bytes::copy_from_slice(format!("{{\"a\":{name:04}}}").as_bytes()),
        ..record(name, None)
    });
    reading.give(Page { held: Hold::uncounted(1000), ..page(listed.to_vec()) });
    assert_eq!(reading.end(), Some(End::Complete(Outcome::Complete)), "all are counted");
    assert_eq!(reading.take_held().bytes(), 3 * 10);
    let found: Vec<_> = reading.into_found().into_iter().map(|found| found.raw).collect();
    assert_eq!(found, [vec!["{\"a\":0002}"; 2], vec!["{\"a\":0004}"]]);
}

#[test]
fn a_window_that_is_suspected_is_asked_for_in_its_parts_and_not_whole() {
    let suspicion = Suspicion::Parts([0, 10, 10, 60]);
    let mut reading = Reading::new(Rules { suspicion, ..numbered() }, window(0, 90), None);
    let mut asked = Vec::new();
    limits_of(&mut reading, |reading, request, _| {
        asked.push((request.from, request.to));
        reading.give(counted(0, Vec::new()));
    });
    assert_eq!(asked, [(-1, 10), (9, 60), (59, 90)], "but for the parts that hold nothing");
}

#[test]
fn what_may_be_cut_short_is_cut_until_that_has_shown_nothing_new_often_enough() {
    // Every interval lists as many as a limit may let through, from this record on.
    let runs = |from: &dyn Fn(usize) -> u8| {
        let rules = Rules { suspicion: Suspicion::Limit(2), ..numbered() };
        let mut reading = Reading::new(rules, window(0, 1 << 60), None);
        let answer = |run| counted(2, records(from(run), 2));
        let limits = limits_of(&mut reading, |reading, _, run| {
            reading.give(answer(run));
        });
        limits.len()
    };
    // The first cut, and sixteen that show nothing; each makes four pieces.
    assert_eq!(runs(&|_| 0), 1 + 4 * (1 + 16));
    assert_eq!(runs(&|run| u8::from(run >= 10)), 1 + 4 * (10 + 16), "counted anew where one is new");
}

#[test]
fn values_of_labels_are_words() {
    let labels: Vec<_> = Outcome::ALL.map(Outcome::label).into();
    assert_eq!(labels, ["complete", "reread", "split", "unstable"]);
    assert_eq!((GapReason::TooDeep.label(), GapReason::Bounds.label()), ("too_deep", "bounds"));
    assert!(Breach::Circle.words().contains("a token came twice"));
}
