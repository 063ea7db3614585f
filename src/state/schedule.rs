//! When which part of the log is read, and whose turn it is.

use crate::event::Millis;
use crate::page::Priority;
use crate::window::{Window, floor_to};

/// When which part of the log is read: a stream's config in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The source's clock unit.
    pub unit: Millis,
    /// Between two live polls.
    pub poll: Millis,
    /// How far behind a multiple of that they fall: the same for all lanes of a stream, which ask for the same windows, and
    /// another for each stream, so that they do not all ask at once.
    pub phase: Millis,
    /// The live pass stops this far behind the server's clock.
    pub settle: Millis,
    /// Every live poll reads this much again.
    pub overlap: Millis,
    /// The ages of the sweeps, ascending.
    pub sweeps: Vec<Millis>,
}

impl Schedule {
    /// Where in its polls the stream called `name` asks.
    #[must_use]
    pub fn phase_of(name: &str, poll: Millis, unit: Millis) -> Millis {
        let hash = blake3::hash(name.as_bytes());
        let number = hash.as_bytes().iter().take(4).fold(0, |number, byte| number << 8 | Millis::from(*byte));
        floor_to(number % poll, unit)
    }

    /// The poll that the server's time `now` falls into.
    #[must_use]
    pub fn tick(&self, now: Millis) -> Millis {
        floor_to(now - self.phase, self.poll) + self.phase
    }

    /// How far the live pass goes at the server's time `now`.
    pub(super) fn live_end(&self, now: Millis) -> Millis {
        floor_to(now - self.settle, self.unit)
    }

    /// Further behind is far behind.
    pub(super) fn far(&self) -> Millis {
        (3 * self.poll).max(60_000)
    }
}

/// A pass: a schedule on which a lane reads windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pass {
    /// Near now.
    Live,
    /// Beyond what is surely over, while clocks contradict each other: moves no mark further than what is.
    Fore,
    /// Everything once more at this age.
    Sweep(Millis),
    /// What the live pass has gone past since this time.
    Backfill(Millis),
}

impl Pass {
    /// Whether it gives way to what is new, and goes on afterwards.
    #[must_use]
    pub const fn gives_way(self) -> bool {
        matches!(self, Self::Sweep(_) | Self::Backfill(_))
    }
}

/// What to read next: a range, to be cut into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// For which pass.
    pub pass: Pass,
    /// Before whose requests.
    pub priority: Priority,
    /// The range.
    pub range: Window,
}

/// Whose turn it was.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// The pass of the job before.
    last: Option<Pass>,
    /// Those that give way to what is new, the last one last.
    beside: Vec<Pass>,
}

/// Backfills end, so not all that ever had a turn are worth knowing.
const MOST_TURNS: usize = 64;

impl Turns {
    /// It was `pass`'s turn.
    pub fn took(&mut self, pass: Pass) {
        self.last = Some(pass);
        if pass.gives_way() {
            self.beside.retain(|other| *other != pass);
            self.beside.push(pass);
            let beyond = self.beside.len().saturating_sub(MOST_TURNS);
            self.beside.drain(..beyond);
        }
    }

    /// It was nobody's.
    pub const fn waited(&mut self) {
        self.last = None;
    }

    /// The pass of the job before.
    #[must_use]
    pub const fn last(&self) -> Option<Pass> {
        self.last
    }

    /// Where `pass` stands in line among those that give way: before all others if it never had a turn.
    #[must_use]
    pub fn place_of(&self, pass: Pass) -> usize {
        self.beside.iter().position(|other| *other == pass).map_or(0, |place| place + 1)
    }
}
