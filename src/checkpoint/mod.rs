//! Stored cursors: a small key-value map with atomic commits of many keys.
