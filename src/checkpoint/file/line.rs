//! Commits that wait for the disk: whoever has its turn writes all of them, with one fsync.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::{Changes, CheckpointError};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: Mutex<Waiting>,
    /// Whose turn it is.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    arrivals: u64,
    /// What is not written yet, by arrival.
    changes: BTreeMap<u64, Arc<Changes>>,
}

impl Line {
    /// Returns once `changes` are written, by this call or by another's. What is written together and fails is tried by
    /// each on its own: each has its own error.
    pub(super) fn commit(
        &self,
        changes: &Changes,
        write: impl Fn(&[Arc<Changes>]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let number = {
            let mut waiting = unpoisoned(self.waiting.lock());
            waiting.arrivals += 1;
            let number = waiting.arrivals;
            waiting.changes.insert(number, Arc::new(changes.clone()));
            number
        };
        let _turn = unpoisoned(self.turn.lock());
        let all = unpoisoned(self.waiting.lock()).changes.clone();
        if !all.contains_key(&number) {
            return Ok(());
        }
        let together = write(&all.values().cloned().collect::<Vec<_>>());
        let (written, result) = match together {
            Ok(()) => (all.into_keys().collect(), Ok(())),
            Err(_) if all.len() > 1 => (vec![number], write(&[Arc::clone(&all[&number])])),
            Err(error) => (vec![number], Err(error)),
        };
        let mut waiting = unpoisoned(self.waiting.lock());
        written.iter().for_each(|number| drop(waiting.changes.remove(number)));
        result
    }
}

/// Whoever panics in its turn has taken nothing out of the line: others write that, too.
fn unpoisoned<T>(locked: Result<T, PoisonError<T>>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    fn put(number: u8) -> Changes {
        Changes { puts: vec![(vec![number], vec![])], ..Changes::default() }
    }

    /// The first writes alone, and while it does the others come: so the next writes all of them, and if that fails each its
    /// own.
    fn with_the_first_held(fails: bool) -> (Vec<Vec<u8>>, Vec<bool>) {
        let (line, written) = (Line::default(), Mutex::new(Vec::new()));
        let write = |all: &[Arc<Changes>]| {
            let keys: Vec<u8> = all.iter().map(|changes| changes.puts[0].0[0]).collect();
            while keys == [0] && line.waiting.lock().unwrap().changes.len() < 4 {
                std::thread::yield_now();
            }
            written.lock().unwrap().push(keys.clone());
            if fails && keys.len() > 1 || keys == [2] {
                return Err(CheckpointError::Lost);
            }
            Ok(())
        };
        let arrived = AtomicU8::new(0);
        let results = std::thread::scope(|scope| {
            let first = scope.spawn(|| line.commit(&put(0), write));
            while line.turn.try_lock().is_ok() {
                std::thread::yield_now();
            }
            let others = [1, 2, 3].map(|number| {
                let (line, arrived) = (&line, &arrived);
                scope.spawn(move || {
                    // One after the other, so that what is written together is in a known order.
                    let waiting = || line.waiting.lock().unwrap().changes.len();
                    while arrived.load(Ordering::Acquire) + 1 != number || waiting() < usize::from(number) {
                        std::thread::yield_now();
                    }
                    arrived.fetch_add(1, Ordering::Release);
                    line.commit(&put(number), write)
                })
            });
            [first].into_iter().chain(others).map(|thread| thread.join().unwrap().is_ok()).collect()
        });
        assert!(line.waiting.lock().unwrap().changes.is_empty());
        (written.into_inner().unwrap(), results)
    }

    #[test]
    fn commits_that_wait_for_each_other_share_a_write() {
        let (written, results) = with_the_first_held(false);
        assert_eq!((written.len(), &written[0], written[1].len()), (2, &vec![0], 3));
        assert_eq!(results, [true; 4]);
    }

    #[test]
    fn of_those_that_fail_together_each_is_tried_alone() {
        let (written, results) = with_the_first_held(true);
        assert_eq!(results, [true, true, false, true]);
        let alone: Vec<_> = written.iter().filter(|keys| keys.len() == 1).collect();
        assert!(alone.contains(&&vec![2]) && written.iter().any(|keys| keys.len() == 3), "{written:?}");
    }
}
