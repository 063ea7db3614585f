//! What `/status` shows: a board on which streams and lanes write where they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock::{now, steady};
use crate::event::{Millis, Source, StreamIdentity};
use crate::health::{LaneState, Movement, Say, Told, WaitsFor};
use crate::metrics::{SinkReason, lag, seconds};
use crate::reading::Gap;
use crate::source::FetchReason;
use crate::version;

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
    /// It has been answered since the process started, or since it was taken over.
    heard: bool,
    clock: Clock,
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
                Health::Failing { reason: "clock", since: *since, message: message.clone() }
            }
            (health, _) => health.clone(),
        }
    }

    /// Nothing is well that has not been heard of.
    fn condition(&self) -> Condition {
        let health = self.health();
        if health == Health::Ok && self.running && !self.heard {
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
    /// How many gaps its cursor keeps.
    gaps: usize,
    /// What it gave up since the process started lies within that.
    gave_up: Option<Gap>,
    told: Told,
    /// It has come to its end, and nobody waits for it.
    ended: bool,
    delivered_through: Option<Millis>,
    verified_through: Option<Millis>,
    passes: Vec<(String, Millis)>,
    delivered: u64,
}

/// Whether what is tried works, and if not, since when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Health {
    Ok,
    Failing {
        reason: &'static str,
        /// Of the first failure since it last worked.
        since: Time,
        message: String,
    },
}

/// How a stream or a lane is, as it is shown.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Condition {
    /// Of a stream `starting`, `ok` or `failing`, of a lane that of a [`LaneState`].
    pub state: &'static str,
    /// Why it fails: a `reason` of the metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Since when it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// What failed, or what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
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
            heard: false,
            clock: Clock::default(),
            read_through: None,
        };
        self.lock().streams.insert(name.to_owned(), stream);
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

    /// Says in the log which lanes do not move on schedule, what they wait for, and when that is over. To be called about
    /// once a second.
    pub fn review(&self) {
        let (steady, at) = (steady(), Instant::now());
        let mut board = self.lock();
        let keys: Vec<_> = board.lanes.keys().cloned().collect();
        for key in keys {
            let lane = &board.lanes[&key];
            let (state, lag) = (board.state(&key, lane, steady, at), board.lag(&key, lane, steady));
            let health = board.health(&key, lane);
            let Some(lane) = board.lanes.get_mut(&key) else { continue };
            let (stream, sink) = (&key.0, &key.1);
            match lane.told.review(at, state) {
                Some(Say::Trouble(lasted)) => {
                    let (state, message) = (state.label(), lane.account(at, state, &health));
                    let (lag_seconds, for_seconds) = (lag.map(|lag| lag / 1000), lasted.as_secs());
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
            health: lane.condition(at, board.state(key, lane, steady, at), &board.health(key, lane)),
            delivered: lane.delivered,
            gaps: lane.gaps,
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
        match lane.movement.state(at, self.lag(key, lane, steady), self.runs(key, lane), failing) {
            // Where it stands is its own word, and so is the server's now, while the API has not said anything.
            LaneState::Ok | LaneState::CatchingUp if !self.is_heard(&key.0) => LaneState::Starting,
            state => state,
        }
    }

    fn is_heard(&self, stream: &str) -> bool {
        self.streams.get(stream).is_some_and(|stream| stream.heard)
    }

    fn runs(&self, key: &(String, String), lane: &Lane) -> bool {
        !lane.ended && self.streams.get(&key.0).is_some_and(|stream| stream.running)
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
            gave_up: None,
            told: Told::default(),
            ended: false,
            delivered_through: None,
            verified_through: None,
            passes: Vec::new(),
            delivered: 0,
        }
    }

    /// Why it is where it is.
    fn account(&self, at: Instant, state: LaneState, health: &Health) -> String {
        match (health, self.waits_for) {
            (Health::Failing { message, .. }, _) if state == LaneState::Failing => message.clone(),
            (_, Some((what, since))) => {
                format!("it waits for {}, for {} s", what.text(), at.saturating_duration_since(since).as_secs())
            }
            _ => "it has not begun".to_owned(),
        }
    }

    fn condition(&self, at: Instant, state: LaneState, health: &Health) -> Condition {
        let mut condition = health.condition();
        condition.state = state.label();
        if state.is_trouble() {
            condition.message = Some(self.account(at, state, health));
        }
        condition
    }
}

impl StreamBoard {
    /// A request gave a page.
    pub fn heard(&self) {
        self.update(|stream| stream.heard = true);
    }

    /// All requests give pages again.
    pub fn ok(&self) {
        self.update(|stream| stream.health = Health::Ok);
    }

    /// The last request gave none. `message` is one line without secrets or personal data, such as a
    /// [`FetchError`](crate::source::FetchError)'s.
    pub fn failing(&self, reason: FetchReason, message: impl Into<String>) {
        let message = message.into();
        self.update(|stream| stream.health.fail(reason.label(), message));
    }

    /// Whether this process runs the stream, and, of replicas, which one has last taken it.
    pub fn set_running(&self, running: bool, owner: Option<&str>) {
        self.update(|stream| {
            stream.heard &= running && stream.running;
            stream.running = running;
            stream.owner = owner.map(ToOwned::to_owned);
        });
        if running {
            let mut board = self.board.lock();
            let lanes = board.lanes.iter_mut().filter(|((stream, _), _)| *stream == self.name);
            lanes.for_each(|(_, lane)| {
                lane.movement.begun(Instant::now());
                lane.ended = false;
            });
        }
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
        self.update(|lane| lane.health.fail(reason.label(), message));
    }

    /// This many more events were delivered and committed.
    pub fn delivered(&self, count: u64) {
        self.update(|lane| lane.delivered += count);
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

    /// It has caught up, or was asked to end.
    pub fn ended(&self) {
        self.update(|lane| lane.ended = true);
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

    /// So many gaps stand in its cursor.
    pub fn set_gaps(&self, gaps: usize) {
        self.update(|lane| lane.gaps = gaps);
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
    fn fail(&mut self, reason: &'static str, message: String) {
        let since = match self {
            Self::Failing { since, .. } => *since,
            Self::Ok => Time(now()),
        };
        *self = Self::Failing { reason, since, message };
    }

    fn condition(&self) -> Condition {
        match self {
            Self::Ok => Condition { state: LaneState::Ok.label(), reason: None, since: None, message: None },
            Self::Failing { reason, since, message } => Condition {
                state: LaneState::Failing.label(),
                reason: Some(reason),
                since: Some(*since),
                message: Some(message.clone()),
            },
        }
    }
}

/// The answer of `/status`.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub version: &'static str,
    pub revision: Option<&'static str>,
    pub uptime_seconds: u64,
    pub ready: bool,
    pub streams: Vec<StreamStatus>,
    pub lanes: Vec<LaneStatus>,
}

#[derive(Debug, Serialize)]
pub(super) struct StreamStatus {
    pub name: String,
    pub source: Source,
    pub tenant: String,
    /// By this process.
    pub running: bool,
    /// Of replicas, the one that has last taken it.
    pub owner: Option<String>,
    #[serde(flatten)]
    pub health: Condition,
    pub clock_offset_seconds: Option<f64>,
    pub read_through: Option<Time>,
    pub fetch_lag_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct LaneStatus {
    pub stream: String,
    pub sink: String,
    #[serde(flatten)]
    pub health: Condition,
    /// Events, since the process started.
    pub delivered: u64,
    /// Parts of the log that it gave up, in this run or one before.
    pub gaps: usize,
    pub delivered_through: Option<Time>,
    pub delivery_lag_seconds: Option<f64>,
    pub verified_through: Option<Time>,
    #[serde(serialize_with = "in_order")]
    pub passes: Vec<(String, Time)>,
}

/// Shown as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time(pub Millis);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A JSON object whose keys keep their order.
fn in_order<S: serde::Serializer>(passes: &[(String, Time)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(passes.iter().map(|(name, through)| (name, through)))
}
