//! One page: what is asked of an API, how urgently, and what it answered.
//!
//! Pure data, the same for every API. Who asks is [`source`](crate::source); what is made of answers is
//! [`reading`](crate::reading)'s.

use crate::event::{Listed, Millis};
use crate::memory::Hold;

/// One page to ask for. All but `position` stays the same through a run of pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// The lower bound as sent (a multiple of the source's clock unit).
    pub from: Millis,
    /// The upper bound as sent.
    pub to: Millis,
    /// Most records in the answer.
    pub limit: u32,
    /// Which page of the run.
    pub position: Position,
}

/// A page's place in its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// The first page.
    First,
    /// The page with this number, from 1 (GenAuth).
    Number(u32),
    /// The page behind this token (SCloud).
    Token(String),
}

/// One API response.
#[derive(Debug, Default)]
pub struct Page {
    /// The records, in the order listed.
    pub records: Vec<Listed>,
    /// How many records the API says there are between the bounds (GenAuth), if it says so.
    pub total: Option<u64>,
    /// The token of the next page (SCloud). An empty one was none.
    pub next_token: Option<String>,
    /// What its records hold together: what they share, too.
    pub held: Hold,
    /// Whether it lists nothing because it has no list: so answers an API that has nothing to say, and one that is under
    /// maintenance.
    pub bare: bool,
}

/// Who waits behind whom for a credential's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// The live pass, near now.
    Live,
    /// A sweep.
    Sweep,
    /// The live pass far behind, and every backfill.
    CatchUp,
}

impl Priority {
    /// The most urgent first.
    pub const ALL: [Self; 3] = [Self::Live, Self::Sweep, Self::CatchUp];
}
