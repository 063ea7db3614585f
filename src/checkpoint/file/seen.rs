//! What the folder has seen: which state was kept there and how many commits it counted, in a small file beside it.
//!
//! It is written behind each commit and never synced, so it is never ahead of what is on the disk: a state that counts
//! fewer commits than this has lost some, or is an older copy. A file that is missing or torn says nothing.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::private;

const MAGIC: &[u8; 8] = b"tc-seen1";
const LENGTH: usize = 32;

/// Which state, and how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Made once, at random, with the state.
    pub identity: u64,
    /// Counted with each.
    pub commits: u64,
}

/// The file.
#[derive(Debug)]
pub(super) struct Seen {
    file: Option<File>,
    last: Mutex<Option<Standing>>,
}

impl Seen {
    /// Opens it; without a place for it nothing is seen, and nothing can be told later.
    pub(super) fn open(folder: &Path) -> Self {
        let opened =
            private::options().read(true).write(true).create(true).truncate(false).open(folder.join("trailcast.seen"));
        let file = opened.inspect_err(|error| tracing::debug!("trailcast.seen: {error}")).ok();
        let mut bytes = [0; LENGTH];
        let read = file.as_ref().and_then(|file| file.read_exact_at(&mut bytes, 0).ok());
        let last = Mutex::new(read.and_then(|()| parse(&bytes)));
        Self { file, last }
    }

    /// What was written last.
    pub(super) fn last(&self) -> Option<Standing> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a commit; of two that end at once the later counts.
    pub(super) fn see(&self, now: Standing) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.identity != now.identity || last.commits < now.commits) {
            self.write(&mut last, now);
        }
    }

    /// Whatever was seen before.
    pub(super) fn accept(&self, now: Standing) {
        self.write(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner), now);
    }

    fn write(&self, last: &mut Option<Standing>, now: Standing) {
        *last = Some(now);
        if let Some(Err(error)) = self.file.as_ref().map(|file| file.write_all_at(&text(now), 0)) {
            tracing::debug!("trailcast.seen: {error}");
        }
    }
}

fn text(standing: Standing) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&standing.identity.to_le_bytes());
    bytes[16..24].copy_from_slice(&standing.commits.to_le_bytes());
    let check = blake3::hash(&bytes[..24]);
    bytes[24..].copy_from_slice(&check.as_bytes()[..8]);
    bytes
}

fn parse(bytes: &[u8; LENGTH]) -> Option<Standing> {
    let number = |from: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[from..from + 8]);
        u64::from_le_bytes(number)
    };
    let standing = Standing { identity: number(8), commits: number(16) };
    (text(standing) == *bytes).then_some(standing)
}
