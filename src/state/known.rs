//! What a lane has learnt of its API and must not forget with the process: kept in its cursor.

use serde::{Deserialize, Serialize};

use crate::event::Millis;
use crate::reading::Gap;

/// So far back is always remembered: an API may begin to go by another time at any moment, and lists again, within what is
/// still read, what it listed before that.
pub(super) const PRESUMED: Millis = 600_000;

/// More gaps than these are not listed one by one: the two oldest become one.
const MOST_GAPS: usize = 100;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// What the stream asks for, as a hash: a cursor is of no use for another question. None in cursors of before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// How far behind the end of a window records' own times were seen to lie that it lists, milliseconds. 0 where the API
    /// goes by the time that records show.
    #[serde(skip_serializing_if = "is_zero")]
    pub skew: Millis,
    /// Where it began, as long as the API has not listed a single record since. None in cursors of version 0.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent: Option<Millis>,
    /// A window, from and to, that the API has listed records for: where it lists none, it does not tell the truth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witness: Option<(Millis, Millis)>,
    /// What was given up, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
const fn is_zero(value: &Millis) -> bool {
    *value == 0
}

/// What a gap is to those that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// A part of one.
    Known,
    /// It makes one larger, or joins some.
    Grows,
    /// One more.
    New,
}

impl Known {
    /// How far behind the floor is remembered what was delivered.
    #[must_use]
    pub fn reach(&self) -> Millis {
        self.skew.max(PRESUMED)
    }

    /// Takes note of a window whose skewest record lies outside by `skew`.
    pub fn saw(&mut self, skew: Millis) {
        self.skew = self.skew.max(skew);
    }

    /// Whatever is asked from now on, it goes on from `time`: what was known of another question is forgotten, and gaps
    /// behind `time` are read again.
    pub fn ask_anew(&mut self, time: Millis) {
        self.question = None;
        self.witness = None;
        self.gaps.retain(|gap| gap.from < time);
        self.gaps.iter_mut().for_each(|gap| gap.to = gap.to.min(time));
    }

    /// Takes note of a gap.
    pub fn add_gap(&mut self, gap: Gap) -> Noted {
        let covers = |known: &Gap| known.reason == gap.reason && known.from <= gap.from && gap.to <= known.to;
        if self.gaps.iter().any(covers) {
            return Noted::Known;
        }
        let mut gap = gap;
        let mut noted = Noted::New;
        // In order, so that what grows reaches the next.
        self.gaps.retain(|known| {
            let touches = known.reason == gap.reason && known.from <= gap.to && gap.from <= known.to;
            if touches {
                noted = Noted::Grows;
                (gap.from, gap.to) = (known.from.min(gap.from), known.to.max(gap.to));
            }
            !touches
        });
        let place = self.gaps.partition_point(|known| known.from <= gap.from);
        self.gaps.insert(place, gap);
        if self.gaps.len() > MOST_GAPS {
            let second = self.gaps.remove(1);
            self.gaps[0].to = self.gaps[0].to.max(second.to);
        }
        noted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reading::GapReason;

    proptest! {
        /// However many: what is covered stays covered, in order, and bounded.
        #[test]
        fn gaps_are_kept_whatever_comes(gaps in proptest::collection::vec((0i64..5000, 1i64..3), 0..400)) {
            let mut known = Known::default();
            let gaps = gaps.into_iter().map(|(from, length)| Gap {
                from: from * 10, to: (from + length) * 10 - 5, reason: GapReason::Unreadable,
            });
            for gap in gaps {
                let touches = |known: &Gap| known.from <= gap.to && gap.from <= known.to;
                let touched = known.gaps.iter().any(touches);
                prop_assert_eq!(known.add_gap(gap) == Noted::New, !touched, "counted once");
                prop_assert!(known.gaps.iter().any(|known| known.from <= gap.from && gap.to <= known.to));
                prop_assert_eq!(known.add_gap(gap), Noted::Known, "told once");
            }
            prop_assert!(known.gaps.len() <= MOST_GAPS);
            prop_assert!(known.gaps.windows(2).all(|two| two[0].to < two[1].from), "what touches is one");
            prop_assert!(known.gaps.is_sorted_by_key(|gap| gap.from));
        }
    }
}
