//! What `/status` shows: a board on which streams and lanes write where they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::answer::{Condition, GapStatus, LaneStatus, Status, StreamStatus, Time};
use crate::clock::{now, steady};
use crate::event::{Millis, StreamIdentity};
use crate::health::{Counts, LaneState, Movement, Pace, Say, Told, WaitsFor};
use crate::metrics::{SinkReason, lag, seconds};
use crate::reading::Gap;
use crate::source::FetchReason;
use crate::version;

/// The most gaps of a lane that are listed one by one; the cursor keeps more.
pub(super) const NEWEST_GAPS: usize = 10;

/// The board. Clones are the same board.
#[derive(Clone, Default)]
pub struct StatusBoard(Arc<Mutex<Board>>);

#[derive(Default)]
struct Board {
    streams: BTreeMap<String, Stream>,
    /// By stream and sink.
    lanes: BTreeMap<(String, String), Lane>,
}

struct Stream {
    running: bool,
    owner: Option<String>,
    identity: StreamIdentity,
    health: Health,
    /// When it was last answered, since the process started or it was taken over.
    heard: Option<Instant>,
    clock: Clock,
    pace: Pace,
    read_through: Option<Millis>,
}

/// The server's clock.
#[derive(Default)]
struct Clock {
    /// Minus this machine's, seconds.
    offset: Option<f64>,
    /// Minus our steady time, milliseconds.
    ahead: i64,
    /// Why it is in doubt, and since when.
    doubt: Option<(Time, String)>,
}

impl Stream {
    /// What cannot read says so; else a clock in doubt does.
    fn health(&self) -> Health {
        match (&self.health, &self.clock.doubt) {
            (Health::Ok, Some((since, message))) => {
                let (since, message) = (*since, message.clone());
                Health::Failing { reason: "clock", since, began: Instant::now(), message, needs_person: false }
            }
            (health, _) => health.clone(),
        }
    }

    /// Nothing is well that has not been heard of: here, or by the replica that runs it.
    fn condition(&self) -> Condition {
        let health = self.health();
        if health == Health::Ok && (self.running || self.owner.is_none()) && self.heard.is_none() {
            return Condition { state: LaneState::Starting.label(), ..health.condition() };
        }
        health.condition()
    }
}

struct Lane {
    health: Health,
    movement: Movement,
    /// What it waits for, and since when.
    waits_for: Option<(WaitsFor, Instant)>,
    /// How many gaps its cursor keeps, and the newest of them.
    gaps: usize,
    newest_gaps: Vec<Gap>,
    /// What it gave up since the process started lies within that.
    gave_up: Option<Gap>,
    told: Told,
    /// Whether it has come to its end, and how.
    end: Option<End>,
    /// It has run here.
    ran: bool,
    delivered_through: Option<Millis>,
    verified_through: Option<Millis>,
    passes: Vec<(String, Millis)>,
    delivered: u64,
    /// Of events since the process started.
    dead_letters: u64,
}

/// How a lane came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It has caught up.
    CaughtUp,
    /// It was asked to end before that.
    Asked,
    /// It could not go on.
    Failed,
}

/// A lane that has not caught up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its stream.
    pub stream: String,
    /// Its sink.
    pub sink: String,
    /// The value of a [`LaneState`].
    pub state: &'static str,
    /// Why it fails, if it does: a `reason` of the metrics.
    pub reason: Option<&'static str>,
    /// What fails, or what it waits for.
    pub message: String,
}

/// Whether what is tried works, and if not, since when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Health {
    Ok,
    Failing {
        reason: &'static str,
        /// Of the first failure since it last worked.
        since: Time,
        /// The same, by monotonic time.
        began: Instant,
        message: String,
        /// Whether a person must act.
        needs_person: bool,
    },
}

/// Where a stream writes.
#[derive(Clone)]
pub struct StreamBoard {
    board: StatusBoard,
    name: String,
}

/// Where a lane writes.
#[derive(Clone)]
pub struct LaneBoard {
    board: StatusBoard,
    /// Stream and sink.
    key: (String, String),
}

impl StatusBoard {
    /// Adds a stream, by its name in the config.
    #[must_use]
    pub fn stream(&self, name: &str, identity: &StreamIdentity) -> StreamBoard {
        let stream = Stream {
            running: false,
            owner: None,
            identity: identity.clone(),
            health: Health::Ok,
            heard: None,
            clock: Clock::default(),
            pace: Pace::default(),
            read_through: None,
        };
        self.lock().streams.insert(name.to_owned(), stream);
        StreamBoard { board: self.clone(), name: name.to_owned() }
    }

    /// Where the stream of that name writes, which is there.
    #[must_use]
    pub fn of_stream(&self, name: &str) -> StreamBoard {
        StreamBoard { board: self.clone(), name: name.to_owned() }
    }

    /// Where a lane writes, by the names of its stream and sink in the config; added if it is not there. It may be
    /// `allowed` behind the server's now, see [`crate::health::allowed`].
    #[must_use]
    pub fn lane(&self, stream: &str, sink: &str, allowed: Duration) -> LaneBoard {
        let key = (stream.to_owned(), sink.to_owned());
        self.lock().lanes.entry(key.clone()).or_insert_with(|| Lane::new(allowed));
        LaneBoard { board: self.clone(), key }
    }

    /// The state of each lane, by stream and sink.
    #[must_use]
    pub fn lane_states(&self) -> Vec<((String, String), LaneState)> {
        let (steady, at) = (steady(), Instant::now());
        let board = self.lock();
        board.lanes.iter().map(|(key, lane)| (key.clone(), board.state(key, lane, steady, at))).collect()
    }

    /// The lanes, by stream and sink, that have given up parts of the log since the process started, with what these lie
    /// within and why the last of them was given up.
    #[must_use]
    pub fn gave_up(&self) -> Vec<((String, String), Gap)> {
        let board = self.lock();
        board.lanes.iter().filter_map(|(key, lane)| Some((key.clone(), lane.gave_up?))).collect()
    }

    /// The lanes that have run here and have not caught up.
    #[must_use]
    pub fn unfinished(&self) -> Vec<Unfinished> {
        let (steady, at) = (steady(), Instant::now());
        let board = self.lock();
        let unfinished = board.lanes.iter().filter(|(_, lane)| lane.ran && lane.end != Some(End::CaughtUp));
        let unfinished = unfinished.map(|(key, lane)| {
            let (state, health) = (board.state(key, lane, steady, at), board.health(key, lane));
            let reason = health.condition().reason;
            let message = lane.account(at, state, &health, board.pace(&key.0));
            Unfinished { stream: key.0.clone(), sink: key.1.clone(), state: state.label(), reason, message }
        });
        unfinished.collect()
    }

    /// How many gaps the cursors of lanes keep that have run here.
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.lock().lanes.values().filter(|lane| lane.ran).map(|lane| lane.gaps).sum()
    }

    /// How many events were delivered, and how many became dead letters instead, since the process started.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let board = self.lock();
        board
            .lanes
            .values()
            .fold((0, 0), |(delivered, dead), lane| (delivered + lane.delivered, dead + lane.dead_letters))
    }

    /// Whether a lane has caught up.
    #[must_use]
    pub fn has_caught_up(&self, stream: &str, sink: &str) -> bool {
        let key = (stream.to_owned(), sink.to_owned());
        self.lock().lanes.get(&key).is_some_and(|lane| lane.end == Some(End::CaughtUp))
    }

    /// Whether any lane has run here.
    #[must_use]
    pub fn has_run(&self) -> bool {
        self.lock().lanes.values().any(|lane| lane.ran)
    }

    /// Whether at `at` only a person can mend what keeps the lanes that still run here from going on: each of them has failed
    /// for so long for such a reason, and neither has its API given a page nor has it stored anything meanwhile.
    #[must_use]
    pub fn needs_person(&self, at: Instant, patience: Duration) -> bool {
        let board = self.lock();
        let mut running = board.lanes.iter().filter(|(_, lane)| lane.ran && lane.end.is_none()).peekable();
        running.peek().is_some() && running.all(|(key, lane)| board.needs_person(key, lane, at, patience))
    }

    /// Says in the log which lanes do not move on schedule, what they wait for, and when that is over. To be called about
    /// once a second.
    pub fn review(&self) {
        let (steady, at) = (steady(), Instant::now());
        let mut board = self.lock();
        let keys: Vec<_> = board.lanes.keys().cloned().collect();
        for key in keys {
            let lane = &board.lanes[&key];
            let (state, lag) = (board.state(&key, lane, steady, at), board.lag(&key, lane, steady));
            let said = board.lanes.get_mut(&key).and_then(|lane| lane.told.review(at, state));
            let (stream, sink) = (&key.0, &key.1);
            match said {
                Some(Say::Trouble(lasted)) => {
                    let lane = &board.lanes[&key];
                    let message = lane.account(at, state, &board.health(&key, lane), board.pace(stream));
                    let state = state.label();
                    // That it has just begun to be so is the line itself.
                    let for_seconds = Some(lasted.as_secs()).filter(|seconds| *seconds > 0);
                    let lag_seconds = lag.map(|lag| lag / 1000);
                    tracing::warn!(
                        stream,
                        sink,
                        state,
                        lag_seconds,
                        for_seconds,
                        "the lane is not on schedule: {message}"
                    );
                }
                Some(Say::Over(lasted)) => {
                    tracing::info!(stream, sink, after_seconds = lasted.as_secs(), "the lane is on schedule again");
                }
                None => {}
            }
        }
    }

    /// What a writer holds is whole at every moment, so a panic of another thread spoils nothing.
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self, ready: bool, uptime: Duration) -> Status {
        let steady = steady();
        let board = self.lock();
        let streams = board.streams.iter().map(|(name, stream)| {
            let lag = stream.read_through.map(|through| lag(steady.saturating_add(stream.clock.ahead), through));
            StreamStatus {
                name: name.clone(),
                source: stream.identity.source,
                tenant: stream.identity.tenant.clone(),
                running: stream.running,
                owner: stream.owner.clone(),
                health: stream.condition(),
                clock_offset_seconds: stream.clock.offset,
                read_through: stream.read_through.map(Time),
                fetch_lag_seconds: lag,
            }
        });
        let at = Instant::now();
        let lanes = board.lanes.iter().map(|(key, lane)| LaneStatus {
            stream: key.0.clone(),
            sink: key.1.clone(),
            health: lane.condition(
                at,
                board.state(key, lane, steady, at),
                &board.health(key, lane),
                board.pace(&key.0),
            ),
            delivered: lane.delivered,
            gaps: lane.gaps,
            newest_gaps: lane.newest_gaps.iter().map(GapStatus::of).collect(),
            delivered_through: lane.delivered_through.map(Time),
            delivery_lag_seconds: lane.delivered_through.map(|through| lag(board.now(&key.0, steady), through)),
            verified_through: lane.verified_through.map(Time),
            passes: lane.passes.iter().map(|(name, through)| (name.clone(), Time(*through))).collect(),
        });
        Status {
            version: version::VERSION,
            revision: version::REVISION,
            uptime_seconds: uptime.as_secs(),
            ready,
            streams: streams.collect(),
            lanes: lanes.collect(),
        }
    }
}

impl Board {
    /// The server's now, `steady` being our steady time.
    fn now(&self, stream: &str, steady: Millis) -> Millis {
        steady.saturating_add(self.streams.get(stream).map_or(0, |stream| stream.clock.ahead))
    }

    /// How far behind the server's now a lane is, in milliseconds; below zero where it is ahead.
    fn lag(&self, key: &(String, String), lane: &Lane, steady: Millis) -> Option<Millis> {
        lane.delivered_through.map(|through| self.now(&key.0, steady).saturating_sub(through))
    }

    fn state(&self, key: &(String, String), lane: &Lane, steady: Millis, at: Instant) -> LaneState {
        let failing = self.health(key, lane) != Health::Ok;
        if lane.end.is_some() && !failing {
            return LaneState::Ended;
        }
        match lane.movement.state(at, self.lag(key, lane, steady), self.runs(key, lane), failing) {
            // Where it stands is its own word, and so is the server's now, while the API has not said anything.
            LaneState::Ok | LaneState::CatchingUp if !self.is_heard(&key.0) => LaneState::Starting,
            state => state,
        }
    }

    fn pace(&self, stream: &str) -> Option<&Pace> {
        self.streams.get(stream).map(|stream| &stream.pace)
    }

    fn is_heard(&self, stream: &str) -> bool {
        self.streams.get(stream).is_some_and(|stream| stream.heard.is_some())
    }

    fn runs(&self, key: &(String, String), lane: &Lane) -> bool {
        lane.end.is_none() && self.streams.get(&key.0).is_some_and(|stream| stream.running)
    }

    fn needs_person(&self, key: &(String, String), lane: &Lane, at: Instant, patience: Duration) -> bool {
        let long = |since: Instant| at.saturating_duration_since(since) >= patience;
        let fails =
            |health: &Health| matches!(health, Health::Failing { began, needs_person: true, .. } if long(*began));
        let stream = self.streams.get(&key.0);
        let cannot_read = stream.is_some_and(|stream| fails(&stream.health) && stream.heard.is_none_or(long));
        (fails(&lane.health) || cannot_read) && lane.movement.still(at) >= patience
    }

    /// What fails for a lane: its own work, or else the stream that it reads here.
    fn health(&self, key: &(String, String), lane: &Lane) -> Health {
        let stream = self.streams.get(&key.0).filter(|_| self.runs(key, lane));
        match (&lane.health, stream) {
            (Health::Ok, Some(stream)) => stream.health(),
            (health, _) => health.clone(),
        }
    }
}

impl Lane {
    fn new(allowed: Duration) -> Self {
        Self {
            health: Health::Ok,
            movement: Movement::new(allowed),
            waits_for: None,
            gaps: 0,
            newest_gaps: Vec::new(),
            gave_up: None,
            told: Told::default(),
            end: None,
            ran: false,
            delivered_through: None,
            verified_through: None,
            passes: Vec::new(),
            delivered: 0,
            dead_letters: 0,
        }
    }

    /// Why it is where it is.
    fn account(&self, at: Instant, state: LaneState, health: &Health, pace: Option<&Pace>) -> String {
        match (health, self.waits_for) {
            (Health::Failing { message, .. }, _) if state == LaneState::Failing => message.clone(),
            (_, Some((what, since))) => {
                let pace = pace.filter(|_| what == WaitsFor::Source).and_then(Pace::text);
                let pace = pace.map_or_else(String::new, |pace| format!(": {pace}"));
                let seconds = at.saturating_duration_since(since).as_secs();
                format!("it has waited for {} for {seconds} s{pace}", what.text())
            }
            _ => "it has not begun".to_owned(),
        }
    }

    fn condition(&self, at: Instant, state: LaneState, health: &Health, pace: Option<&Pace>) -> Condition {
        let mut condition = health.condition();
        condition.state = state.label();
        if state.is_trouble() {
            condition.message = Some(self.account(at, state, health, pace));
        }
        condition
    }
}

impl StreamBoard {
    /// A request gave a page.
    pub fn heard(&self) {
        self.update(|stream| stream.heard = Some(Instant::now()));
    }

    /// All requests give pages again.
    pub fn ok(&self) {
        self.update(|stream| stream.health = Health::Ok);
    }

    /// The last request gave none. `message` is one line without secrets or personal data, such as a
    /// [`FetchError`](crate::source::FetchError)'s.
    pub fn failing(&self, reason: FetchReason, message: impl Into<String>) {
        let message = message.into();
        let needs_person = reason.needs_operator();
        self.update(|stream| stream.health.fail(reason.label(), message, needs_person));
    }

    /// Whether this process runs the stream, and, of replicas, which one has last taken it.
    pub fn set_running(&self, running: bool, owner: Option<&str>) {
        self.update(|stream| {
            stream.heard = stream.heard.filter(|_| running && stream.running);
            stream.running = running;
            stream.owner = owner.map(ToOwned::to_owned);
        });
        if running {
            let mut board = self.board.lock();
            let lanes = board.lanes.iter_mut().filter(|((stream, _), _)| *stream == self.name);
            lanes.for_each(|(_, lane)| {
                lane.movement.begun(Instant::now());
                (lane.end, lane.ran) = (None, true);
            });
        }
    }

    /// Its counts stand so now: to be told about once a second.
    pub fn set_counts(&self, counts: Counts) {
        self.update(|stream| stream.pace.see(Instant::now(), counts));
    }

    /// The server's clock minus this machine's wall clock, milliseconds: for showing alone.
    pub fn set_clock_offset(&self, millis: i64) {
        self.update(|stream| stream.clock.offset = Some(seconds(millis)));
    }

    /// The server's clock minus our steady time, milliseconds: what lags are reckoned by. And why it is in doubt, if so.
    pub fn set_clock(&self, ahead: i64, doubt: Option<String>) {
        self.update(|stream| {
            stream.clock.ahead = ahead;
            let since = stream.clock.doubt.as_ref().map_or_else(|| Time(now()), |(since, _)| *since);
            stream.clock.doubt = doubt.map(|message| (since, message));
        });
    }

    /// Everything before `end` was read completely. Never goes back, as several lanes may tell.
    pub fn set_read_through(&self, end: Millis) {
        self.update(|stream| stream.read_through = stream.read_through.max(Some(end)));
    }

    /// It was not: only what lies before `end`.
    pub fn put_read_through_back(&self, end: Millis) {
        self.update(|stream| stream.read_through = stream.read_through.map(|through| through.min(end)));
    }

    fn update(&self, act: impl FnOnce(&mut Stream)) {
        if let Some(stream) = self.board.lock().streams.get_mut(&self.name) {
            act(stream);
        }
    }
}

impl LaneBoard {
    /// The last delivery and commit worked.
    pub fn ok(&self) {
        self.update(|lane| lane.health = Health::Ok);
    }

    /// The last delivery or commit failed. `message` is one line without secrets or personal data.
    pub fn failing(&self, reason: SinkReason, message: impl Into<String>) {
        let message = message.into();
        let needs_person = reason.needs_operator();
        self.update(|lane| lane.health.fail(reason.label(), message, needs_person));
    }

    /// This many more events were delivered and committed.
    pub fn delivered(&self, count: u64) {
        self.update(|lane| lane.delivered += count);
    }

    /// This many more events became dead letters.
    pub fn dead_letters(&self, count: u64) {
        self.update(|lane| lane.dead_letters += count);
    }

    /// Everything before `end` is delivered and committed. To be called at each commit, also where `end` stays.
    pub fn set_delivered_through(&self, end: Millis) {
        self.update(|lane| {
            lane.delivered_through = Some(end);
            lane.movement.committed(Instant::now(), end);
        });
    }

    /// A part of the log could not be read and is given up.
    pub fn gave_up(&self, gap: Gap) {
        self.update(|lane| {
            let all = lane.gave_up.unwrap_or(gap);
            lane.gave_up = Some(Gap { from: all.from.min(gap.from), to: all.to.max(gap.to), ..gap });
        });
    }

    /// It has come to its end. That it has caught up stays so, whatever it is asked afterwards.
    pub fn ended(&self, end: End) {
        self.update(|lane| lane.end = lane.end.filter(|end| *end == End::CaughtUp).or(Some(end)));
    }

    /// What the lane waits for from here on.
    pub fn waits_for(&self, what: WaitsFor) {
        self.update(|lane| {
            if lane.waits_for.is_none_or(|(before, _)| before != what) {
                lane.waits_for = Some((what, Instant::now()));
            }
        });
    }

    /// Everything before `end` was swept at the oldest age.
    pub fn set_verified_through(&self, end: Millis) {
        self.update(|lane| lane.verified_through = Some(end));
    }

    /// These gaps stand in its cursor, oldest first.
    pub fn set_gaps(&self, gaps: &[Gap]) {
        self.update(|lane| {
            lane.gaps = gaps.len();
            lane.newest_gaps = gaps[gaps.len().saturating_sub(NEWEST_GAPS)..].to_vec();
        });
    }

    /// Each pass by name, and its watermark, in the order to show them.
    pub fn set_passes(&self, passes: Vec<(String, Millis)>) {
        self.update(|lane| lane.passes = passes);
    }

    fn update(&self, act: impl FnOnce(&mut Lane)) {
        if let Some(lane) = self.board.lock().lanes.get_mut(&self.key) {
            act(lane);
        }
    }
}

impl Health {
    fn fail(&mut self, reason: &'static str, message: String, needs_person: bool) {
        let at = Instant::now();
        *self = match self {
            // A person is waited for from when that is so.
            Self::Failing { since, began, needs_person: before, .. } => {
                let began = if needs_person && !*before { at } else { *began };
                Self::Failing { reason, since: *since, began, message, needs_person }
            }
            Self::Ok => Self::Failing { reason, since: Time(now()), began: at, message, needs_person },
        };
    }

    fn condition(&self) -> Condition {
        match self {
            Self::Ok => Condition { state: LaneState::Ok.label(), reason: None, since: None, message: None },
            Self::Failing { reason, since, message, .. } => Condition {
                state: LaneState::Failing.label(),
                reason: Some(reason),
                since: Some(*since),
                message: Some(message.clone()),
            },
        }
    }
}
