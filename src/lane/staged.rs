//! Parts of which it is not known yet that they are true, in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::PART_BYTES;
use crate::checkpoint::Changes;
use crate::checkpoint::kafka::{Answer, TransactError, Work};
use crate::dead_letter::Refused;
use crate::feed::WindowRead;
use crate::state::admit::New;
use crate::state::cursor::Cursor;

/// The most parts that are submitted at once: the transaction that is being committed holds one or some of them, the
/// next one the others.
const MOST: usize = 6;

/// A part, and what becomes true with it.
pub(super) struct Staged {
    /// The window that it is of.
    pub read: Arc<WindowRead>,
    /// Its events.
    pub part: Vec<New>,
    /// To the state.
    pub changes: Arc<Changes>,
    /// The cursor once it is true.
    pub cursor: Cursor,
    /// Its first try, where it has been submitted.
    pub transaction: Option<Transaction>,
}

/// Events, dead letters and changes, submitted for one transaction.
pub(super) struct Transaction {
    /// All that is to become true at once.
    pub work: Work,
    /// The events that are known to be refused; letters of them are among the messages.
    pub refused: Vec<Refused>,
    /// When the first try began.
    pub submitted: Instant,
    /// What has become of it.
    pub first: FirstTry,
}

/// A part's first try.
pub(super) enum FirstTry {
    /// Is waited for.
    Waits(Answer),
    /// Is over.
    Over(Result<(), TransactError>),
    /// Has not been made, or is of no use.
    None,
}

/// See the module.
#[derive(Default)]
pub(super) struct Parts(VecDeque<Staged>);

impl Parts {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the first must become true before there is another. Only a part that has been submitted can wait.
    pub fn is_full(&self) -> bool {
        let bytes = self.0.iter().flat_map(|staged| &staged.part).map(|new| new.admitted.raw.len()).sum::<usize>();
        self.0.len() >= MOST || bytes >= PART_BYTES || self.0.front().is_some_and(|first| first.transaction.is_none())
    }

    pub fn push(&mut self, staged: Staged) {
        self.0.push_back(staged);
    }

    /// Returns once the first try of the first part is over.
    pub async fn answered(&mut self) {
        let Some(transaction) = self.0.front_mut().and_then(|first| first.transaction.as_mut()) else { return };
        if let FirstTry::Waits(answer) = &mut transaction.first {
            transaction.first = FirstTry::Over(answer.wait().await);
        }
    }

    /// The first part. If its first try has failed, so has every other's.
    pub fn pop(&mut self) -> Option<Staged> {
        let first = self.0.pop_front()?;
        if first.transaction.as_ref().is_some_and(|transaction| matches!(transaction.first, FirstTry::Over(Err(_)))) {
            for later in self.0.iter_mut().filter_map(|staged| staged.transaction.as_mut()) {
                later.first = FirstTry::None;
            }
        }
        Some(first)
    }

    /// Where the lane stands once all are true; `now` it stands there.
    pub fn cursor<'a>(&'a self, now: &'a Cursor) -> &'a Cursor {
        self.0.back().map_or(now, |last| &last.cursor)
    }

    /// What all change, in order.
    pub fn changes(&self) -> Vec<Arc<Changes>> {
        self.0.iter().map(|staged| Arc::clone(&staged.changes)).collect()
    }
}
