//! What every use of Kafka shares: clients made from a [`ClusterConfig`](crate::config::ClusterConfig), topics, messages and their acknowledgement.
//!
//! Knows nothing of records, cursors or lanes. Calls that block say so; none is made on the runtime's workers.

mod bookmark;
mod client;
mod failure;
mod producer;
mod topic;

pub use bookmark::Bookmark;
pub use client::{Context, Purpose, client_config, clients_ended};
pub use failure::Failure;
pub use producer::{Message, Producer, Report, Sending};
pub use topic::{Cluster, GroupMember, Read, Topic, TopicError};

/// How long one question to a cluster may take before it counts as failed; it is asked again by whoever asks.
pub(crate) const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);
