//! Who is next of all that wait for a credential's requests. Pure.
//!
//! What is new comes first, and streams have their turns: so no poll waits for more than one request of each other stream. Those
//! that wait behind it have a share all the same, or a stream whose polls need all that there is would keep every other from
//! verifying what it has.

use std::collections::BTreeMap;

use crate::page::Priority;

/// So many requests of others come at most before one of a priority that waits.
const MOST_BEFORE: u32 = 8;

/// A place in the line. Within a stream and a priority they are in the order of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) priority: Priority,
    pub(super) stream: u64,
    pub(super) arrival: u64,
    /// Tells apart those that share the rest.
    pub(super) number: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Line<T> {
    waiting: BTreeMap<Place, T>,
    /// By priority.
    served: [Served; Priority::ALL.len()],
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), served: Default::default() }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Served {
    /// The stream that was served last.
    last: u64,
    /// So many requests of others were served since, while one waited.
    before: u32,
}

impl<T> Line<T> {
    pub(super) fn insert(&mut self, place: Place, waiting: T) {
        self.waiting.insert(place, waiting);
    }

    pub(super) fn remove(&mut self, place: &Place) {
        self.waiting.remove(place);
    }

    /// Who is next; with `in_order` by priority alone.
    pub(super) fn first(&self, in_order: bool) -> Option<(&Place, &T)> {
        let starved = |priority: &Priority| self.served[*priority as usize].before >= MOST_BEFORE;
        let starved = Priority::ALL.into_iter().filter(|priority| !in_order && starved(priority));
        starved.chain(Priority::ALL).find_map(|priority| self.first_of(priority))
    }

    /// Of the stream whose turn it is.
    fn first_of(&self, priority: Priority) -> Option<(&Place, &T)> {
        let from = |stream| Place { priority, stream, arrival: 0, number: 0 };
        let end = Place { priority, stream: u64::MAX, arrival: u64::MAX, number: u64::MAX };
        let next = self.served[priority as usize].last + 1;
        self.waiting.range(from(next)..=end).next().or_else(|| self.waiting.range(from(0)..=end).next())
    }

    /// Takes note that whoever has `place` was served.
    pub(super) fn served(&mut self, place: &Place) {
        for priority in Priority::ALL {
            let waits = self.first_of(priority).is_some();
            let served = &mut self.served[priority as usize];
            served.before = if priority != place.priority && waits { served.before + 1 } else { 0 };
        }
        self.served[place.priority as usize].last = place.stream;
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAMS: std::ops::Range<u64> = 1..6;

    /// Who waits, each with those that were served meanwhile.
    #[derive(Default)]
    struct Waiting {
        line: Line<()>,
        meanwhile: BTreeMap<Place, Vec<Place>>,
    }

    impl Waiting {
        fn arrive(&mut self, priority: Priority, stream: u64) {
            let number = self.meanwhile.keys().map(|place| place.number).max().unwrap_or(0) + 1;
            let place = Place { priority, stream, arrival: number, number };
            self.line.insert(place, ());
            self.meanwhile.insert(place, Vec::new());
        }

        fn serve(&mut self) -> Option<(Place, Vec<Place>)> {
            let first = *self.line.first(false)?.0;
            self.line.served(&first);
            self.line.remove(&first);
            let meanwhile = self.meanwhile.remove(&first).expect("it waited");
            self.meanwhile.values_mut().for_each(|others| others.push(first));
            Some((first, meanwhile))
        }
    }

    fn priority() -> impl Strategy<Value = Priority> {
        prop_oneof![Just(Priority::Live), Just(Priority::Sweep), Just(Priority::CatchUp)]
    }

    proptest! {
        /// Whatever comes in whatever order: of its own priority each waits for one request of each other stream, and one more for
        /// each of its own stream that is served before it; of another priority for no more than the share of that.
        #[test]
        fn all_have_their_turns(arrivals in proptest::collection::vec((priority(), STREAMS, 0usize..3), 1..300)) {
            let mut waiting = Waiting::default();
            let rest = arrivals.len();
            let mut served = 0;
            let last = (Priority::Live, 1, rest + 1);
            for (priority, stream, serve) in arrivals.into_iter().chain([last]) {
                waiting.arrive(priority, stream);
                for _ in 0..serve {
                    let Some((place, meanwhile)) = waiting.serve() else { break };
                    served += 1;
                    let alike = |stream: u64| {
                        let like = |other: &&Place| (other.priority, other.stream) == (place.priority, stream);
                        meanwhile.iter().filter(like).count()
                    };
                    for stream in STREAMS.filter(|stream| *stream != place.stream) {
                        prop_assert!(alike(stream) <= alike(place.stream) + 1, "{place:?} behind {meanwhile:?}");
                    }
                    let turns = 1 + meanwhile.iter().filter(|other| other.priority == place.priority).count();
                    let others = meanwhile.len() + 1 - turns;
                    let share = if place.priority == Priority::Live { 2 } else { MOST_BEFORE as usize + 2 };
                    prop_assert!(others <= turns * share, "{place:?} behind {meanwhile:?}");
                }
            }
            prop_assert_eq!(served, rest + 1, "nobody is left");
        }
    }

    /// A stream whose polls need all that there is.
    #[test]
    fn what_waits_behind_new_things_has_a_share() {
        let mut waiting = Waiting::default();
        for _ in 0..100 {
            waiting.arrive(Priority::Live, 1);
            waiting.arrive(Priority::Sweep, 2);
            waiting.arrive(Priority::CatchUp, 3);
        }
        assert_eq!(waiting.line.first(true).unwrap().0.priority, Priority::Live);
        let served: Vec<_> = (0..100).map(|_| waiting.serve().unwrap().0.priority).collect();
        let share = |priority| served.iter().filter(|served| **served == priority).count();
        assert_eq!(Priority::ALL.map(share), [78, 11, 11]);
        assert!(served[..8].iter().all(|priority| *priority == Priority::Live));
    }
}
