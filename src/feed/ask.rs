//! Here alone requests are repeated: until a page comes, or it is certain that it does not.

use std::time::{Duration, Instant};

use super::trouble::{Kind, Say};
use super::{Feed, lengths, lock};
use crate::clock::millis;
use crate::config::units;
use crate::event::Millis;
use crate::memory::Awaited;
use crate::page::{Page, PageRequest, Position, Priority};
use crate::retry::Backoff;
use crate::source::{FailureClass, FetchError, FetchReason, Rank};
use crate::window::{Now, Window, floor_to};

/// After so many failures the place of a later page is taken to be the cause (a token that has run out, a page too deep
/// for the API), and its run is begun anew.
const LATER_TRIES: u32 = 5;
/// The same once a run of this window, or of one shortly before, has broken off.
const FEWER_TRIES: u32 = 2;
/// After so many failures a first page's interval is taken to be the cause, if others are given; fewer where the API says
/// that the request is at fault, since those waits are long.
const FIRST_TRIES: (u32, u32) = (6, 2);
/// Such a part of an interval is asked for where all of it is refused.
const PART: Millis = 60_000;
/// What the API keeps grows older while the first of it is asked for: so long.
const SPARE: Millis = 60_000;
/// The live pass's requests that fail are repeated so soon, or within a poll.
const SOON: Duration = Duration::from_secs(5);

/// What became of a request.
pub(super) enum Asked {
    Page(Page),
    /// A later page cannot be had.
    Broken,
    /// The answer is larger than may be held.
    TooLarge,
    /// The first page of this interval cannot be had, though others can.
    Refused,
    /// Not at once, and nobody waits for it.
    NotNow,
}

/// Who asks: its place in the limiter's line, and whether a lane waits for it.
#[derive(Clone, Copy)]
pub(super) struct Asks<'a> {
    pub rank: Rank,
    pub awaited: &'a Awaited,
    /// What cannot be had at once is given up.
    pub once: bool,
}

impl Feed {
    /// Whoever asks now, and a lane waits for it.
    pub(super) fn asks(&self, priority: Priority) -> Asks<'_> {
        Asks { rank: self.client.rank(priority), awaited: &self.awaited, once: false }
    }

    /// Asks until the page comes, or it is certain that it is this page that does not: sooner where a run has `broken` off lately.
    pub(super) async fn fetch(&self, request: &PageRequest, asks: Asks<'_>, broken: bool) -> Asked {
        let later_tries = if broken { FEWER_TRIES } else { LATER_TRIES };
        let mut backoff = Backoff::new();
        let mut tries = 0;
        loop {
            self.metrics.request_started();
            match self.client.fetch_for(request, asks.rank, asks.awaited).await {
                Ok(fetched) => {
                    self.metrics.request_finished(fetched.timing.requests);
                    self.metrics.waited(fetched.timing);
                    self.metrics.records(fetched.page.records.len() as u64);
                    self.show_clock();
                    self.worked(Kind::Requests);
                    if request.position != Position::First {
                        self.worked(Kind::Pages);
                    }
                    return Asked::Page(fetched.page);
                }
                Err(error) if error.reason == FetchReason::TooLarge => {
                    self.metrics.error(error.reason);
                    tracing::debug!(stream = self.stream.name, limit = request.limit, "asking for less: {error}");
                    return Asked::TooLarge;
                }
                Err(error) if asks.once => {
                    self.metrics.error(error.reason);
                    return Asked::NotNow;
                }
                Err(error) => {
                    tries += 1;
                    let later = request.position != Position::First;
                    if later && is_of_its_place(&error, tries, later_tries) {
                        // If there is more to it than a token's age or a page too deep, the new run's first page tells.
                        self.metrics.error(error.reason);
                        let (stream, reason) = (&self.stream.name, error.reason.label());
                        tracing::debug!(stream, reason, "a run of pages broke off, reading it again: {error}");
                        self.failed(Kind::Pages, error.reason, &format!("later pages cannot be had: {error}"), false);
                        return Asked::Broken;
                    }
                    self.metrics.error(error.reason);
                    let needs_operator = error.class.needs_operator();
                    tracing::debug!(
                        stream = self.stream.name,
                        reason = error.reason.label(),
                        "request failed: {error}"
                    );
                    if later {
                        self.failed(Kind::Pages, error.reason, &format!("later pages cannot be had: {error}"), false);
                    } else {
                        self.failed(Kind::Requests, error.reason, &error.to_string(), needs_operator);
                    }
                    let may_be_length = error.class == FailureClass::Refused || is_of_its_interval(&error, tries);
                    if !later && may_be_length && self.is_too_long(request, asks).await {
                        return Asked::Refused;
                    }
                    if !later && is_of_its_interval(&error, tries) {
                        let witnesses = lock(&self.learnt).neighbourhood.witnesses();
                        for witness in witnesses.iter().filter(|witness| is_elsewhere(**witness, request)) {
                            if self.lists(witness.from - self.rules.unit, witness.to, asks).await {
                                return Asked::Refused;
                            }
                        }
                    }
                    let wait = backoff.wait(needs_operator, error.retry_after);
                    // What is new is asked for again within a poll, or a little more: the API may be back long before.
                    let is_soon = asks.rank.is_live() && !needs_operator && error.retry_after.is_none();
                    let most = Duration::from_millis(self.schedule.poll.unsigned_abs()).max(SOON);
                    tokio::time::sleep(if is_soon { wait.min(most) } else { wait }).await;
                }
            }
        }
    }

    /// Whether an interval that is refused may be so for its length: its last minute is answered.
    async fn is_too_long(&self, request: &PageRequest, asks: Asks<'_>) -> bool {
        let length = request.to - request.from;
        let part = PageRequest { from: request.to - PART, limit: 1, ..request.clone() };
        let is_too_long = length > lengths::SHORT && self.ask_once(&part, asks).await.is_ok();
        if is_too_long {
            lock(&self.learnt).lengths.are_refused(length);
        }
        is_too_long
    }

    /// Once: an API that fails here is asked again by whoever has doubts.
    pub(super) async fn ask_once(&self, request: &PageRequest, asks: Asks<'_>) -> Result<Page, FetchReason> {
        self.metrics.request_started();
        match self.client.fetch_for(request, asks.rank, asks.awaited).await {
            Ok(fetched) => {
                self.metrics.request_finished(fetched.timing.requests);
                self.metrics.waited(fetched.timing);
                Ok(fetched.page)
            }
            Err(error) => {
                self.metrics.error(error.reason);
                Err(error.reason)
            }
        }
    }

    pub(super) async fn lists(&self, from: Millis, to: Millis, asks: Asks<'_>) -> bool {
        self.one_of(from, to, asks).await.is_some()
    }

    /// Whether an interval lists anything, and the time that it shows.
    pub(super) async fn one_of(&self, from: Millis, to: Millis, asks: Asks<'_>) -> Option<Option<Millis>> {
        let request = PageRequest { from, to, limit: 1, position: Position::First };
        match self.ask_once(&request, asks).await {
            Ok(page) => match page.records.first() {
                Some(record) => Some(record.time),
                None => page.next_token.map(|_| None),
            },
            // One record that is too large is a record.
            Err(reason) => (reason == FetchReason::TooLarge).then_some(None),
        }
    }

    /// Asks for the first page of a stream until it comes.
    pub(super) async fn first_heard(&self, request: &PageRequest) {
        let _ = self.fetch(request, self.asks(Priority::Live), false).await;
    }

    pub(super) fn failed(&self, kind: Kind, reason: FetchReason, message: &str, needs_operator: bool) {
        let stream = &self.stream.name;
        let said = lock(&self.trouble).failed(kind, reason, message, needs_operator, Instant::now());
        let Some(said) = said else { return };
        self.board.failing(reason, message.to_owned());
        let loud = needs_operator || reason == FetchReason::Doubtful;
        let (what, next) = match kind {
            Kind::Requests | Kind::Pages | Kind::Runs | Kind::Answers => ("cannot read from the API", ", trying again"),
            Kind::Bounds | Kind::Places | Kind::Parts => ("cannot trust what the API gives", ""),
        };
        match said {
            Say::Failing if loud => tracing::error!(stream, reason = reason.label(), "{what}{next}: {message}"),
            Say::Failing => tracing::warn!(stream, reason = reason.label(), "{what}{next}: {message}"),
            Say::Still(since) => {
                let since = units::passed_text(since);
                tracing::error!(stream, reason = reason.label(), since, "still {what}: {message}");
            }
            Say::Well(..) => unreachable!("a failure is no recovery"),
        }
    }

    pub(super) fn worked(&self, kind: Kind) {
        if kind == Kind::Requests {
            self.board.heard();
        }
        let Some(Say::Well(after, other)) = lock(&self.trouble).worked(kind, Instant::now()) else { return };
        match other {
            Some((reason, message)) => self.board.failing(reason, message),
            None => {
                self.board.ok();
                let after = units::passed_text(after);
                tracing::info!(stream = self.stream.name, after, "reads from the API again");
            }
        }
    }

    /// The oldest time that the API still gives at the server's time `now`: the least there can be of what it documents.
    #[must_use]
    pub fn oldest_kept(&self, now: Now) -> Option<Millis> {
        self.client.history().map(|history| now.sure - millis(history))
    }

    /// The oldest time that whoever begins at `now` can read: the bound moves on while the first window is asked for, and the
    /// API may refuse what lies beyond it.
    #[must_use]
    pub fn oldest_readable(&self, now: Now) -> Option<Millis> {
        self.oldest_kept(now).map(|kept| floor_to(kept + SPARE, self.rules.unit))
    }
}

/// Whether a failure is that of a page's place in its run.
fn is_of_its_place(error: &FetchError, tries: u32, most: u32) -> bool {
    match error.class {
        FailureClass::Refused => true,
        FailureClass::Throttled | FailureClass::Credentials => false,
        FailureClass::Transient | FailureClass::Malformed => tries >= most,
    }
}

/// Whether a failure may be that of what was asked for, and not of whom.
fn is_of_its_interval(error: &FetchError, tries: u32) -> bool {
    match error.class {
        FailureClass::Refused => tries >= FIRST_TRIES.1,
        FailureClass::Throttled | FailureClass::Credentials => false,
        FailureClass::Transient | FailureClass::Malformed => {
            tries >= FIRST_TRIES.0 && error.reason != FetchReason::Connect
        }
    }
}

fn is_elsewhere(witness: Window, request: &PageRequest) -> bool {
    witness.to < request.from || request.to < witness.from
}
