//! Values that show damage: each is stored behind a checksum of its key and itself.

use redb::Error;

/// The bytes before each value.
const CHECK: usize = 8;

/// A value as it is stored.
pub(super) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    [&check(key, value)[..], value].concat()
}

/// The value, out of what is stored.
///
/// # Errors
/// It is not what was stored under this key.
pub(super) fn open<'v>(key: &[u8], sealed: &'v [u8]) -> Result<&'v [u8], Error> {
    let damaged = || Error::Corrupted("a value is not what was stored".to_owned());
    let (said, value) = sealed.split_at_checked(CHECK).ok_or_else(damaged)?;
    if said == check(key, value) { Ok(value) } else { Err(damaged()) }
}

fn check(key: &[u8], value: &[u8]) -> [u8; CHECK] {
    let mut hash = blake3::Hasher::new();
    // The key's length, so that no byte can move from one to the other.
    hash.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    let mut check = [0; CHECK];
    check.copy_from_slice(&hash.finalize().as_bytes()[..CHECK]);
    check
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_is_what_was_stored_under_its_key_or_an_error(
            key in prop::collection::vec(any::<u8>(), 0..20),
            value in prop::collection::vec(any::<u8>(), 0..40),
            place in any::<prop::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let mut sealed = seal(&key, &value);
            prop_assert_eq!(open(&key, &sealed).expect("whole"), &value[..]);
            let mut other = key.clone();
            other.push(0);
            prop_assert!(open(&other, &sealed).is_err());
            prop_assert!(open(&key, &sealed[..sealed.len() - 1]).is_err());
            let place = place.index(sealed.len());
            sealed[place] ^= 1 << bit;
            prop_assert!(open(&key, &sealed).is_err());
        }
    }
}
