//! Stored cursors: a small key-value map with atomic commits of many keys.

use std::ops::Range;

/// What one commit changes: all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys to set.
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys to remove.
    pub deletes: Vec<Vec<u8>>,
    /// Ranges of keys to remove.
    pub delete_ranges: Vec<Range<Vec<u8>>>,
}
