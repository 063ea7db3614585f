//! One budget of bytes for the process, and one for each stream, for what is held: bodies, records, and what waits for
//! sinks.
//!
//! Knows nothing of what is held. Waits, but does no other I/O; no clock.
//!
//! ## The rules
//! - **Nobody waits for what another holds for long.** The budget is divided: each stream has a [`Share`] of its own, the
//!   same for all, and one that is full, since its sink is down, takes nothing from the others'. What is left over is
//!   *common*: for the bodies of answers that a share has no room for. It is taken at once or waited for with empty hands,
//!   and given back when the body is parsed; so whoever has some comes to an end by itself, and who came first is next.
//! - **What is read ahead waits; what is waited for does not.** A reading that its lane does not wait for yet may hold its
//!   part of the share, then it waits until there is room, or until its turn has come ([`Awaited`]). A reading that a lane
//!   waits for never waits for what is held, only for bodies that are under way: so those ahead may hold what they have
//!   while they wait, and no lane stands for another.
//! - **What is held is counted until it is gone.** A [`Hold`] goes where the bytes go and gives them back when dropped.
//!
//! So a stream holds no more than its share, and for each lane one window, one page and one part beyond it at the very
//! most: where one record alone is larger than that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

#[cfg(test)]
mod tests;

/// The part of the process's budget that is common, for large bodies.
const COMMON: u64 = 4;
/// The common part is counted in KiB.
const COMMON_UNIT: u64 = 1024;
/// A body of this size is reckoned with before any has come, and whatever came.
const SMALL_BODY: u64 = 64 << 10;

/// The process's budget.
#[derive(Debug, Clone)]
pub struct Budget {
    process: u64,
    share: u64,
    common: Arc<Semaphore>,
    common_size: u64,
}

impl Budget {
    /// `process` bytes in all, at most `stream` for each of so many `streams`.
    #[must_use]
    pub fn new(process: u64, stream: u64, streams: usize) -> Self {
        // In whole units: no more is asked for than there is.
        let units = (process / COMMON / COMMON_UNIT).clamp(1, u64::from(u32::MAX));
        let common_size = units * COMMON_UNIT;
        let share = (process - process / COMMON) / u64::try_from(streams.max(1)).unwrap_or(u64::MAX);
        let units = usize::try_from(units).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { process, share: share.min(stream), common: Arc::new(Semaphore::new(units)), common_size }
    }

    /// In all.
    #[must_use]
    pub const fn process(&self) -> u64 {
        self.process
    }

    /// A stream's share.
    #[must_use]
    pub fn share(&self) -> Arc<Share> {
        Arc::new(Share {
            size: self.share,
            common: Arc::clone(&self.common),
            common_size: self.common_size,
            expected: AtomicU64::new(SMALL_BODY),
            state: Mutex::default(),
        })
    }

    /// The largest body that there is room for.
    #[must_use]
    pub const fn largest_body(process: u64) -> u64 {
        // One that is damaged is written anew beside what came.
        process / COMMON / 2
    }
}

/// What one stream may hold, and holds.
#[derive(Debug)]
pub struct Share {
    size: u64,
    common: Arc<Semaphore>,
    common_size: u64,
    /// How large the next body will be, by those before it.
    expected: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Records, and what waits for sinks.
    held: u64,
    /// Bodies that are under way or being parsed.
    bodies: u64,
    /// Of these, in the common part.
    in_common: u64,
    /// Who waits, in the order of service: first those that are waited for.
    line: BTreeMap<(bool, u64), Arc<Notify>>,
    arrivals: u64,
}

/// Whether a lane waits for a reading: its turn has come.
#[derive(Debug, Clone)]
pub struct Awaited(Arc<watch::Sender<bool>>);

impl Awaited {
    /// Not yet.
    #[must_use]
    pub fn ahead() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// From the beginning.
    #[must_use]
    pub fn now() -> Self {
        Self(Arc::new(watch::Sender::new(true)))
    }

    /// Its turn has come.
    pub fn come(&self) {
        self.0.send_replace(true);
    }

    fn has_come(&self) -> bool {
        *self.0.borrow()
    }

    async fn wait(&self) {
        // The sender is here, so it cannot be gone.
        let _ = self.0.subscribe().wait_for(|come| *come).await;
    }
}

impl Share {
    /// How much it is.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What of it is held, and beyond it.
    #[must_use]
    pub fn held(&self) -> u64 {
        let state = self.state();
        state.held + state.bodies + state.in_common
    }

    /// Whether what is read ahead has to wait.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.state().held > self.ahead()
    }

    /// The most that is held by what is read ahead.
    const fn ahead(&self) -> u64 {
        self.size / 3
    }

    /// The most bytes of bodies in the share itself.
    const fn own_bodies(&self) -> u64 {
        self.size / 2
    }

    /// Room for a body of at most `largest` bytes, by what came before; waits for it while others have it. Where the share
    /// has none for a body as large as that, room in the common part is to be had by [`Room::ready`].
    pub async fn room(self: &Arc<Self>, largest: u64, awaited: &Awaited) -> Room {
        let mut place = Place::new(self, !awaited.has_come());
        loop {
            let ahead = !awaited.has_come();
            if place.is_ahead() && !ahead {
                place = Place::new(self, false);
            }
            if let Some(room) = self.try_room(largest, &place) {
                return room;
            }
            tokio::select! {
                () = place.turn.notified() => {}
                () = awaited.wait(), if ahead => {}
            }
        }
    }

    fn try_room(self: &Arc<Self>, largest: u64, place: &Place<'_>) -> Option<Room> {
        // A damaged one is written anew beside what came.
        let bytes = self.expected.load(Ordering::Relaxed).min(2 * largest);
        let mut state = self.state();
        if state.line.first_key_value().is_none_or(|(first, _)| *first != place.key) {
            return None;
        }
        let mut own = bytes;
        if place.is_ahead() {
            if state.held + state.bodies + bytes > self.ahead() {
                return None;
            }
        } else if bytes > self.own_bodies() {
            own = 0;
        } else if state.bodies + bytes > self.own_bodies() {
            return None;
        }
        state.bodies += own;
        Some(Room { share: Arc::clone(self), largest, wanted: bytes, own, common: None })
    }

    /// Room for a body that is always small, such as that of a token: at once, since others wait for whoever asks.
    #[must_use]
    pub fn small_room(self: &Arc<Self>) -> Room {
        self.state().bodies += SMALL_BODY;
        Room { share: Arc::clone(self), largest: SMALL_BODY, wanted: SMALL_BODY, own: SMALL_BODY, common: None }
    }

    /// Counts what is held for as long as it is.
    #[must_use]
    pub fn hold(self: &Arc<Self>, bytes: u64) -> Hold {
        self.state().held += bytes;
        Hold { share: Some(Arc::clone(self)), bytes }
    }

    /// Nothing in here panics half-way, so a poisoned lock is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake_first(&self) {
        if let Some(turn) = self.line.values().next() {
            turn.notify_one();
        }
    }
}

/// A place in the line, given back when dropped.
struct Place<'a> {
    share: &'a Share,
    key: (bool, u64),
    turn: Arc<Notify>,
}

impl<'a> Place<'a> {
    fn new(share: &'a Share, ahead: bool) -> Self {
        let mut state = share.state();
        state.arrivals += 1;
        let key = (ahead, state.arrivals);
        let turn = Arc::new(Notify::new());
        state.line.insert(key, Arc::clone(&turn));
        Self { share, key, turn }
    }

    const fn is_ahead(&self) -> bool {
        self.key.0
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.share.state();
        state.line.remove(&self.key);
        state.wake_first();
    }
}

/// Room for one body, from before it is asked for until it is parsed; given back when dropped.
#[derive(Debug)]
pub struct Room {
    share: Arc<Share>,
    largest: u64,
    /// How much is to be had in the common part, if nothing is had yet.
    wanted: u64,
    own: u64,
    common: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// The largest body that may come.
    #[must_use]
    pub const fn largest(&self) -> u64 {
        self.largest
    }

    /// For how many bytes there is room.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.own + self.common.as_ref().map_or(0, |common| common.num_permits() as u64 * COMMON_UNIT)
    }

    /// Waits for what is to be had in the common part, if anything is. The request may be sent then.
    pub async fn ready(&mut self) {
        if self.bytes() > 0 {
            return;
        }
        let units = self.units(self.wanted);
        // Nobody closes it.
        if let Ok(permit) = Arc::clone(&self.share.common).acquire_many_owned(units).await {
            self.share.state().in_common += u64::from(units) * COMMON_UNIT;
            self.common = Some(permit);
        }
    }

    /// Makes room for `bytes`, if there is any: whoever holds a part of a body waits for nobody.
    pub fn grow(&mut self, bytes: u64) -> bool {
        if bytes <= self.bytes() {
            return true;
        }
        if self.common.is_none() {
            let mut state = self.share.state();
            if state.bodies - self.own + bytes <= self.share.own_bodies() {
                state.bodies = state.bodies - self.own + bytes;
                self.own = bytes;
                return true;
            }
        }
        let units = self.units(bytes - self.common.as_ref().map_or(0, |_| self.bytes()));
        let Ok(permit) = Arc::clone(&self.share.common).try_acquire_many_owned(units) else { return false };
        self.give_own_back();
        self.share.state().in_common += u64::from(units) * COMMON_UNIT;
        match &mut self.common {
            Some(common) => common.merge(permit),
            none => *none = Some(permit),
        }
        true
    }

    /// What has come of the body is thrown away: it is asked for again once there is room for `bytes`.
    pub fn outgrown(&mut self, bytes: u64) {
        self.give_own_back();
        self.give_common_back();
        self.wanted = bytes;
        self.share.expected.fetch_max(bytes, Ordering::Relaxed);
    }

    /// A body has come that took so many bytes: about as many are reckoned with for those to come, fewer as they get smaller.
    pub fn took(&self, bytes: u64) {
        let before = self.share.expected.load(Ordering::Relaxed);
        let expected = (bytes + bytes / 4).max(before - before / 8).max(SMALL_BODY);
        self.share.expected.store(expected, Ordering::Relaxed);
    }

    /// Counts what is kept of it.
    #[must_use]
    pub fn hold(&self, bytes: u64) -> Hold {
        self.share.hold(bytes)
    }

    fn units(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.min(self.share.common_size).div_ceil(COMMON_UNIT)).unwrap_or(u32::MAX).max(1)
    }

    fn give_own_back(&mut self) {
        let mut state = self.share.state();
        state.bodies -= std::mem::take(&mut self.own);
        state.wake_first();
    }

    fn give_common_back(&mut self) {
        if let Some(common) = self.common.take() {
            self.share.state().in_common -= common.num_permits() as u64 * COMMON_UNIT;
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give_own_back();
        self.give_common_back();
    }
}

/// Bytes that are held; given back when dropped. The default holds none, of nobody's.
#[derive(Debug, Default)]
pub struct Hold {
    share: Option<Arc<Share>>,
    bytes: u64,
}

impl Hold {
    /// So many bytes that no budget counts.
    #[cfg(any(test, fuzzing))]
    pub(crate) const fn uncounted(bytes: u64) -> Self {
        Self { share: None, bytes }
    }

    /// How many.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds so many from now on.
    pub fn resize(&mut self, bytes: u64) {
        if let Some(share) = &self.share {
            let mut state = share.state();
            state.held = state.held - self.bytes + bytes;
            state.wake_first();
        }
        self.bytes = bytes;
    }

    /// Takes over what another holds of the same share.
    pub fn add(&mut self, mut other: Self) {
        let bytes = self.bytes + other.bytes;
        other.resize(0);
        if self.share.is_none() {
            self.bytes = 0;
            self.share = other.share.take();
        }
        self.resize(bytes);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.resize(0);
    }
}
