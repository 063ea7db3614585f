//! Parts of which it is not known yet that they are true, in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tracing::Span;

use super::PART_BYTES;
use super::trace::Reason;
use crate::checkpoint::kafka::{Answer, TransactError, Work};
use crate::dead_letter::Refused;
use crate::feed::WindowRead;
use crate::memory::Hold;
use crate::spans;
use crate::state::admit::New;
use crate::state::cursor::Cursor;
use crate::state::store::Changes;

/// The most parts that are submitted at once: one in the transaction that is being committed, and one that waits for the
/// next. Measured: more parts are hardly faster, and each costs memory thrice, as records, messages and in the client.
const MOST: usize = 2;

/// What a part is of.
pub(super) struct Of {
    /// The window.
    pub read: Arc<WindowRead>,
    /// Whether it is the window's last part.
    pub last: bool,
    /// The window's span.
    pub trace: Arc<spans::Window>,
}

/// A part, and what becomes true with it.
pub(super) struct Staged {
    /// What it is of.
    pub of: Of,
    /// Its events.
    pub part: Vec<New>,
    /// To the state.
    pub changes: Arc<Changes>,
    /// The cursor once it is true.
    pub cursor: Cursor,
    /// What its events take once they are encoded. Held, never read.
    pub _held: Hold,
    /// Its first try, where it has been submitted.
    pub transaction: Option<Transaction>,
}

/// Events, dead letters and changes, submitted for one transaction.
pub(super) struct Transaction {
    /// All that is to become true at once.
    pub work: Work,
    /// The events that are known to be refused; letters of them are among the messages.
    pub refused: Vec<Refused>,
    /// All tries.
    pub span: Span,
    /// When the first began.
    pub submitted: Instant,
    /// What has become of it.
    pub first: FirstTry,
}

/// A part's first try.
pub(super) enum FirstTry {
    /// Is waited for.
    Waits {
        /// What comes of it.
        answer: Answer,
        /// Its span.
        commit: Span,
    },
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
        if let FirstTry::Waits { answer, commit } = &mut transaction.first {
            let result = answer.wait().await;
            if let Err(error) = &result {
                spans::failed(commit, error.reason());
            }
            transaction.first = FirstTry::Over(result);
        }
    }

    /// The first part. If its first try has failed, so has every other's.
    pub fn pop(&mut self) -> Option<Staged> {
        let first = self.0.pop_front()?;
        if first.transaction.as_ref().is_some_and(|transaction| matches!(transaction.first, FirstTry::Over(Err(_)))) {
            for later in self.0.iter_mut().filter_map(|staged| staged.transaction.as_mut()) {
                if let FirstTry::Waits { commit, .. } = std::mem::replace(&mut later.first, FirstTry::None) {
                    spans::failed(&commit, TransactError::Unfounded.reason());
                }
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
