//! The truth ledger: what happened, whatever the API makes of it.

use std::sync::Arc;

use crate::event::{Millis, Source};

use super::genauth::{self, Act};
use super::history::{Slot, Walk};
use super::scloud::{self, Operation};
use super::text;
use super::world::World;

/// One record as it really is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truth {
    /// The time that the record says; `None` when it says none that can be read.
    pub time: Option<Millis>,
    /// The time by which the API sorts and selects it: its own, or the one that it should have said.
    pub listed_at: Millis,
    /// When the API first shows it, on the servers' clock.
    pub readable_at: Millis,
    /// Whether that is later than it happened.
    pub late: bool,
    /// Whether it is far larger than others. The lines do not say it.
    pub large: bool,
    /// What it is.
    pub content: Content,
}

/// What a record is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Content {
    /// What identifies it: a compact JSON array of the identity fields' values in the documented order, null for
    /// what is absent, times as numbers (GenAuth milliseconds, SCloud seconds).
    ///
    /// GenAuth: userId, appId, clientIp, eventType, eventDetail, success, userAgent, timestamp, requestId.
    /// SCloud: Region, Api, IsSuccess, OperateTime, UserName, UserEmail, the list of the related resources'
    /// ResourceId, RemoteIP, AccessKeyID.
    Identity(String),
    /// The whole text of a record that is not written as documented. It never varies.
    Odd(String),
}

impl Truth {
    pub(super) fn of(world: &World, source: Source, slot: &Slot) -> Self {
        let history = &world.api(source).history;
        let odd = history.odd(slot.root);
        let mut out = Vec::with_capacity(512);
        let timed = match (source, odd) {
            (Source::Genauth, None) => {
                Act::at(history, slot).identity(&mut out);
                true
            }
            (Source::Scloud, None) => {
                Operation::at(history, slot).identity(&mut out);
                true
            }
            (Source::Genauth, Some(odd)) => genauth::write_odd(&mut out, &Act::at(history, slot), odd),
            (Source::Scloud, Some(odd)) => scloud::write_odd(&mut out, &Operation::at(history, slot), odd),
        };
        let written = String::from_utf8_lossy(&out).into_owned();
        Self {
            time: timed.then_some(slot.time),
            listed_at: slot.time,
            readable_at: slot.readable_at,
            late: slot.readable_at > slot.at,
            large: history.large(slot.root),
            content: if odd.is_some() { Content::Odd(written) } else { Content::Identity(written) },
        }
    }

    /// Writes it as a line of JSON: `{"time", "listed_at", "readable_at", "late", "identity", "raw"}`, the last two
    /// being null for each other's sake.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":");
        match self.time {
            Some(time) => text::number(out, time.unsigned_abs()),
            None => out.extend_from_slice(b"null"),
        }
        text::key_after(out, b',', "listed_at");
        text::number(out, self.listed_at.unsigned_abs());
        text::key_after(out, b',', "readable_at");
        text::number(out, self.readable_at.unsigned_abs());
        text::key_after(out, b',', "late");
        text::boolean(out, self.late);
        text::key_after(out, b',', "identity");
        match &self.content {
            Content::Identity(identity) => {
                out.extend_from_slice(identity.as_bytes());
                out.extend_from_slice(b",\"raw\":null}\n");
            }
            Content::Odd(raw) => {
                out.extend_from_slice(b"null,\"raw\":");
                text::string(out, raw);
                out.extend_from_slice(b"}\n");
            }
        }
    }
}

/// The records of a range of time, in order of time: all that have happened, readable or not yet.
#[derive(Debug)]
pub struct Ledger {
    world: Arc<World>,
    source: Source,
    walk: Walk,
    next: u64,
    end: u64,
}

impl Ledger {
    /// The records of `source` that the API lists at `from` or later and before `to`.
    #[must_use]
    pub fn new(world: Arc<World>, source: Source, from: Millis, to: Millis) -> Self {
        let history = &world.api(source).history;
        let mut walk = Walk::default();
        let happened = history.first_at(world.clock.now() + 1, &mut walk);
        let next = history.first_with_time(from, &mut walk);
        let end = history.first_with_time(to, &mut walk).min(happened);
        Self { world, source, walk, next, end }
    }
}

impl Iterator for Ledger {
    type Item = Truth;

    fn next(&mut self) -> Option<Truth> {
        if self.next >= self.end {
            return None;
        }
        let slot = self.world.api(self.source).history.slot(self.next, &mut self.walk);
        self.next += 1;
        Some(Truth::of(&self.world, self.source, &slot))
    }
}
