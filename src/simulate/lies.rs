//! Answers that succeed and are not true: what each API says instead, for a while or now and then.

use super::clock::millis;
use super::hash::{happens, mix};
use super::options::Options;
use super::world::{Api, World, locked};
use crate::event::Millis;

/// A way to lie. One that only the other API knows does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Lie {
    /// A success with a message and nothing else
    Maintenance,
    /// GenAuth: a success whose data is null, or has no members
    NoData,
    /// A success that lists nothing and has nothing more
    Empty,
    /// GenAuth: a count of none beside the records
    ZeroCount,
    /// GenAuth: the count of this page instead of all
    PageCount,
    /// GenAuth: a count of 7 beside an empty list
    CountAlone,
    /// GenAuth: a count of 10^17
    HugeCount,
    /// GenAuth: the first two of five records, with the count of all
    ShortList,
    /// Later pages list nothing
    EmptyLaterPages,
    /// Later pages fail with a code that says to try again
    DeepErrors,
    /// SCloud: a NextToken that is an object
    MistypedToken,
    /// SCloud: every NextToken is refused
    RefusedTokens,
    /// SCloud: a NextToken on every page, the last one too
    EndlessTokens,
    /// SCloud: a NextToken of 8 MiB
    LongTokens,
    /// A page with 8 MiB of an unknown member
    Padded,
    /// A list of two million tiny records
    ManyRows,
    /// The answer to the request before, as of a cache or a mixed-up connection
    OtherAnswer,
    /// Nothing wrong: a byte order mark, NULs, and {} for an empty list
    Spelled,
}

/// Those of `--faults`: no client that looks at what it reads loses anything by them.
pub const MODERATE: [Lie; 8] = [
    Lie::NoData,
    Lie::ZeroCount,
    Lie::CountAlone,
    Lie::DeepErrors,
    Lie::MistypedToken,
    Lie::RefusedTokens,
    Lie::Padded,
    Lie::Spelled,
];

/// The bytes of padding and of long tokens.
pub const LARGE: usize = 8 << 20;
/// The bytes that a large record has more than others.
pub const LARGE_RECORD: usize = 64 << 10;
/// Tiny records on a page of too many.
pub const MANY: usize = 2_000_000;

impl World {
    /// How the answer to this request is to lie, if it is.
    #[must_use]
    pub fn lie(&self, nonce: u64) -> Option<Lie> {
        let options = &self.options;
        let since = self.clock.now() - *self.asked_at.get_or_init(|| self.clock.now());
        let from = millis(options.lie_after);
        let until = options.lie_for.map_or(Millis::MAX, |length| from.saturating_add(millis(length)));
        let all = !options.lie.is_empty() && options.lie_share == 0.0 && (from..until).contains(&since);
        if !all && !happens(mix(nonce, 12), options.lie_share) {
            return None;
        }
        let chosen = if options.lie.is_empty() { &MODERATE[..] } else { &options.lie[..] };
        let place = usize::try_from(mix(nonce, 13) % chosen.len() as u64).unwrap_or(0);
        Some(chosen[place])
    }
}

impl Api {
    /// Keeps an answer for [`Lie::OtherAnswer`], where that may be told.
    pub fn answered(&self, options: &Options, body: &[u8]) {
        if options.lie.contains(&Lie::OtherAnswer) {
            body.clone_into(&mut locked(&self.last));
        }
    }

    /// The last answer that was true, if there was one.
    pub fn last_answer(&self) -> Option<Vec<u8>> {
        Some(locked(&self.last).clone()).filter(|body| !body.is_empty())
    }
}

/// What stands around `body` in the spelling of a careless server.
#[must_use]
pub fn spelled(body: &[u8]) -> Vec<u8> {
    let mut out = b"\xef\xbb\xbf\r\n".to_vec();
    out.extend_from_slice(body);
    out.extend_from_slice(b"\n\0");
    out
}

/// Writes a list of [`MANY`] records.
pub fn many(out: &mut Vec<u8>) {
    out.extend(b"{},".iter().copied().cycle().take(3 * (MANY - 1)));
    out.extend_from_slice(b"{}");
}

/// Writes an unknown member, and a comma.
pub fn padding(out: &mut Vec<u8>) {
    unknown(out, LARGE);
    out.push(b',');
}

/// Adds an unknown member to the record that `out` ends with.
pub fn enlarge(out: &mut Vec<u8>) {
    out.truncate(out.len() - 1);
    out.push(b',');
    unknown(out, LARGE_RECORD);
    out.push(b'}');
}

fn unknown(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(b"\"Unknown\":\"");
    out.resize(out.len() + length, b'x');
    out.push(b'"');
}
