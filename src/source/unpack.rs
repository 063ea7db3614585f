//! The bytes of an answer as they come, unpacked where they are packed, within the room that there is for them.

use std::io::{Error, Write};

use flate2::write::GzDecoder;

use super::http::Unread;
use super::{FailureClass, FetchError, FetchReason};
use crate::memory::Room;

/// No more than so many bytes are unpacked before others have their turn: each may become a thousand.
const PIECE: usize = 4096;
/// What begins a member of a gzip file.
const MAGIC: u8 = 0x1f;

/// What of a body has come.
pub(super) struct Body<'a> {
    bytes: Vec<u8>,
    room: &'a mut Room,
    /// How long it is said to be.
    said: u64,
    /// Why no more of it was taken.
    unread: Option<Unread>,
}

impl<'a> Body<'a> {
    pub(super) const fn new(said: u64, room: &'a mut Room) -> Self {
        Self { bytes: Vec::new(), room, said, unread: None }
    }

    /// Takes what came; what room it takes is made before.
    pub(super) fn take(&mut self, chunk: &[u8]) -> Result<(), Unread> {
        let (largest, length) = (self.room.largest(), self.bytes.len() + chunk.len());
        check_size(length, largest).map_err(|error| if self.may_be_a_page(chunk) { error } else { no_page() })?;
        if length > self.bytes.capacity() {
            // As much again as has come, and no more: what is announced may never come.
            let most = (2 * length as u64).min(largest);
            let said = self.said.min(largest);
            let capacity = if (length as u64..=most).contains(&said) { said } else { most };
            if !self.room.grow(capacity) {
                // If it says how long it is, that is how much it is asked for again with.
                return Err(Unread::Outgrown(if said > capacity { said } else { largest }));
            }
            self.bytes.reserve_exact(usize::try_from(capacity).unwrap_or(usize::MAX) - self.bytes.len());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// Whether what came, `chunk` the last, begins as a page does: with an object, whatever some servers put before it.
    fn may_be_a_page(&self, chunk: &[u8]) -> bool {
        let stands_before = |byte: &u8| byte.is_ascii_whitespace() || b"\0\xef\xbb\xbf".contains(byte);
        self.bytes.iter().chain(chunk).find(|byte| !stands_before(byte)).is_none_or(|first| *first == b'{')
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.take(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(unread) => {
                self.unread = Some(unread);
                Err(Error::other("no room"))
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Unpacks gzip (RFC 1952): one member after the other, each with its own checksum. What follows the last and begins none,
/// as zeros up to a block's end, is left out: flate2's own decoder of several members takes that for a damaged one.
pub(super) struct Gunzip<'a> {
    at: At<'a>,
    /// Bytes that came.
    packed: usize,
}

enum At<'a> {
    /// Before a member, or behind the last.
    Between(Body<'a>),
    Member(Box<GzDecoder<Body<'a>>>),
}

impl<'a> Gunzip<'a> {
    pub(super) const fn new(body: Body<'a>) -> Self {
        Self { at: At::Between(body), packed: 0 }
    }

    /// Takes what came.
    pub(super) async fn take(mut self, chunk: &[u8]) -> Result<Self, Unread> {
        for piece in chunk.chunks(PIECE) {
            self = self.unpack(piece)?;
            if chunk.len() > PIECE {
                tokio::task::yield_now().await;
            }
        }
        Ok(self)
    }

    fn unpack(mut self, mut packed: &[u8]) -> Result<Self, Unread> {
        self.packed += packed.len();
        while !packed.is_empty() {
            self.at = match self.at {
                At::Between(body) => {
                    // Members that hold nothing, and what follows them, take no room, and are to end all the same.
                    check_size(self.packed, body.room.largest())?;
                    if packed[0] != MAGIC && self.packed > packed.len() {
                        return Ok(Self { at: At::Between(body), ..self });
                    }
                    At::Member(Box::new(GzDecoder::new(body)))
                }
                At::Member(mut decoder) => match decoder.write(packed) {
                    Ok(0) => At::Between(ended(*decoder)?),
                    Ok(taken) => {
                        packed = &packed[taken..];
                        At::Member(decoder)
                    }
                    Err(error) => return Err(unread(&error, &mut decoder)),
                },
            };
        }
        Ok(self)
    }

    /// What it is unpacked. An answer of no bytes is not packed, either.
    pub(super) fn end(self) -> Result<Body<'a>, Unread> {
        match self.at {
            At::Between(body) => Ok(body),
            At::Member(decoder) => ended(*decoder),
        }
    }
}

fn ended(mut decoder: GzDecoder<Body<'_>>) -> Result<Body<'_>, Unread> {
    decoder.try_finish().map_err(|error| unread(&error, &mut decoder))?;
    decoder.finish().map_err(|error| garbled(&error))
}

fn unread(error: &Error, decoder: &mut GzDecoder<Body<'_>>) -> Unread {
    decoder.get_mut().unread.take().unwrap_or_else(|| garbled(error))
}

fn garbled(error: &Error) -> Unread {
    Unread::Failed(FetchError::garbled(format!("the answer is not packed as it says, or ended early: {error}")))
}

/// Fewer records would make no answer smaller that lists none.
fn no_page() -> Unread {
    Unread::Failed(FetchError::garbled("the answer is no page, and larger than any: as of a gateway; look at endpoint"))
}

pub(super) fn check_size(size: usize, largest: u64) -> Result<(), Unread> {
    if size as u64 <= largest {
        return Ok(());
    }
    Err(Unread::Failed(FetchError::new(
        FailureClass::Malformed,
        FetchReason::TooLarge,
        format!("the answer is larger than max_response_size, {largest} bytes"),
    )))
}
