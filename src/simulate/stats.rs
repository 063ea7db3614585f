//! What a simulator really did, so that a test can assert that the dangerous thing happened.

use serde::Serialize;

/// Counts of one source's API since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SourceStats {
    /// Requests that arrived.
    pub requests: u64,
    /// Pages of records that were answered, those that were then torn included.
    pub pages: u64,
    /// Records on them.
    pub records: u64,
    /// Of these: records that the API had shown late.
    pub late_records: u64,
    /// Of these: records that have twins.
    pub twin_records: u64,
    /// Of these: records that are not written as documented.
    pub odd_records: u64,
    /// Pages that ended between two twins.
    pub twins_cut: u64,
    /// Pages before which records had appeared or moved, so that they repeat some or leave some out.
    pub page_shifts: u64,
    /// Pages whose order of equal times was shuffled.
    pub shuffled_pages: u64,
    /// Pages that were full with records of one clock unit.
    pub crowded_pages: u64,
    /// SCloud: pages that were empty though more followed.
    pub empty_pages: u64,
    /// Requests that were refused for their credentials or their signature.
    pub unauthorized: u64,
    /// Of these: for a management token that had expired.
    pub expired_tokens: u64,
    /// Requests that were refused for their parameters.
    pub refused: u64,
    /// Of these: GenAuth pages beyond the limit of rows.
    pub too_deep: u64,
    /// Of these: SCloud NextTokens that had expired.
    pub expired_next_tokens: u64,
    /// Of these: intervals that were too long.
    pub too_long: u64,
    /// Answers that left out what others list, and did not count it.
    pub clipped: u64,
    /// GenAuth: management tokens that were issued.
    pub tokens_issued: u64,
    /// Requests that were throttled because there were too many within a second.
    pub over_limit: u64,
    /// Fault: for what cannot be read.
    pub unreadable: u64,
    /// Fault: throttled without Retry-After.
    pub throttled: u64,
    /// Fault: throttled with Retry-After.
    pub throttled_retry_after: u64,
    /// Fault: a code that says to try again.
    pub errors: u64,
    /// Fault: a code of credentials, permission or parameters.
    pub refusals: u64,
    /// Fault: the connection ended before the body did.
    pub torn: u64,
    /// Fault: a complete answer whose JSON ends early.
    pub truncated: u64,
    /// Fault: never answered.
    pub hung: u64,
    /// Fault: a gateway's HTML with status 502.
    pub html: u64,
    /// Fault: the connection was closed without an answer.
    pub closed: u64,
    /// Answers whose Date was off.
    pub dates_off: u64,
    /// Fault: a success that is not true.
    pub lies: u64,
}

/// Counts of both APIs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Of the GenAuth API.
    pub genauth: SourceStats,
    /// Of the SCloud API.
    pub scloud: SourceStats,
}
