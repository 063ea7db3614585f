//! SCloud's NextToken: opaque to clients, all that the server remembers of a run of pages.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::event::Millis;
use crate::simulate::hash::mix;

/// Makes a changed token show. Not a secret: nobody attacks a simulator.
const SEAL: u64 = 0x7363_6c6f_7564_2e31;

/// What a NextToken says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextToken {
    /// A hash of the parameters that it belongs to.
    pub run: u64,
    /// Records before the page that it asks for.
    pub offset: u64,
    /// When it was given.
    pub issued: Millis,
    /// The request that it was given to: no two tokens are the same.
    pub nonce: u64,
}

impl NextToken {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> String {
        let words = [self.run, self.offset, self.issued.unsigned_abs(), self.nonce];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend_from_slice(&seal(&words).to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// As it was given; `None` when it never was.
    #[must_use]
    pub fn decode(token: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (words, rest) = bytes.as_chunks::<8>();
        let &[run, offset, issued, nonce, sealed] =
            words.iter().map(|word| u64::from_be_bytes(*word)).collect::<Vec<_>>().as_slice()
        else {
            return None;
        };
        let intact = rest.is_empty() && seal(&[run, offset, issued, nonce]) == sealed;
        intact.then_some(Self { run, offset, issued: Millis::try_from(issued).ok()?, nonce })
    }
}

fn seal(words: &[u64]) -> u64 {
    words.iter().fold(SEAL, |seal, word| mix(seal, *word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_whole_or_not_at_all() {
        let token = NextToken { run: 7, offset: 50, issued: 1_700_000_000_000, nonce: 9 };
        assert_eq!(NextToken::decode(&token.encode()), Some(token));
        let other = NextToken { run: 8, ..token }.encode();
        let forged = format!("{}{}", &token.encode()[..12], &other[12..]);
        for wrong in ["", "AAAA", "not base64!", &token.encode()[1..], &forged] {
            assert_eq!(NextToken::decode(wrong), None, "{wrong}");
        }
    }
}
