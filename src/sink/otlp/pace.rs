//! How much a receiver is sent at once, and how long it is waited for: less and longer while requests fail, whatever the
//! reason, and as before once they pass. Known of the receiver, not of a part.
//!
//! Pure.

/// So many requests that pass, at most, before a larger one is tried again.
const MOST_CALM: u32 = 64;
/// A receiver that answers too late is waited for this many times as long, at most.
const MOST_PATIENCE: u32 = 4;

#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// The most records of a request.
    limit: usize,
    /// The same, where all is well.
    most: usize,
    /// The most that passed since larger ones failed; 0 while nothing has.
    proven: usize,
    /// Requests that passed since `limit` last changed, and how many must before it grows.
    calm: u32,
    needed: u32,
    patience: u32,
}

impl Pace {
    pub(super) const fn new(most: usize) -> Self {
        Self { limit: most, most, proven: 0, calm: 0, needed: 1, patience: 1 }
    }

    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// How many times `request_timeout` an answer is waited for.
    pub(super) const fn patience(&self) -> u32 {
        self.patience
    }

    /// A request of `count` records passed; `slowly`: not within one `request_timeout`.
    pub(super) fn passed(&mut self, count: usize, slowly: bool) {
        if !slowly {
            self.patience = 1;
        }
        if count > self.proven {
            self.proven = count;
            self.needed = (self.needed / 2).max(1);
        }
        self.calm += 1;
        if self.calm >= self.needed && self.limit < self.most {
            self.calm = 0;
            self.limit = (self.limit * 2).min(self.most);
        }
    }

    /// Whether a request of `count` records that fails is more than has passed, where less has.
    pub(super) const fn is_attempt(&self, count: usize) -> bool {
        self.proven > 0 && count > self.proven
    }

    /// A request of `count` records is too much, or may be. One that was not answered costs its whole time: the next has
    /// an eighth, and more time.
    pub(super) fn shrink(&mut self, count: usize, unanswered: bool) {
        if self.is_attempt(count) {
            self.needed = (self.needed * 2).min(MOST_CALM);
        }
        if unanswered {
            self.patience = (self.patience * 2).min(MOST_PATIENCE);
        }
        self.limit =
            if self.is_attempt(count) && !unanswered { self.proven } else { count / if unanswered { 8 } else { 2 } };
        self.limit = self.limit.max(1);
        self.proven = self.proven.min(self.limit);
        self.calm = 0;
    }
}

impl Pace {
    /// A request of `count` records was refused for what is in it, or so it is said.
    pub(super) fn refused(&mut self, count: usize) {
        self.proven = self.proven.min(count.saturating_sub(1));
    }

    /// What was refused passes in smaller requests: it was their size.
    pub(super) fn settle(&mut self) {
        if self.proven > 0 {
            self.shrink(self.proven + 1, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A receiver that takes so many at most: most requests pass, however long it goes on.
        #[test]
        fn it_settles_at_what_is_taken(most in 1_usize..1000, takes in 1_usize..1000) {
            let mut pace = Pace::new(most);
            let mut failed = 0;
            for _ in 0..2000 {
                if pace.limit() <= takes {
                    pace.passed(pace.limit(), false);
                } else {
                    failed += 1;
                    pace.shrink(pace.limit(), false);
                }
            }
            prop_assert!(failed < 60, "{} of 2000", failed);
            prop_assert!(pace.limit() * 2 > takes.min(most), "{} where {} are taken", pace.limit(), takes);
        }

        /// After an outage of any length it is as before within some requests.
        #[test]
        fn it_recovers(most in 1_usize..=1000, failures in 1..100, unanswered in any::<bool>()) {
            let mut pace = Pace::new(most);
            for _ in 0..failures {
                pace.shrink(pace.limit(), unanswered);
            }
            prop_assert!(pace.limit() >= 1 && pace.patience() <= MOST_PATIENCE);
            for _ in 0..11 {
                pace.passed(pace.limit(), false);
            }
            prop_assert_eq!((pace.limit(), pace.patience()), (most, 1));
        }
    }
}
