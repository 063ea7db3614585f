//! A request's bytes, made of log records that are encoded already: each record is encoded once, in however many
//! requests it is sent.

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// What stands around the records of one resource, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// `ResourceLogs.resource`.
    resource: Vec<u8>,
    /// `ScopeLogs.scope`.
    scope: Vec<u8>,
}

/// `ExportLogsServiceRequest.resource_logs`, and the first field of what is inside.
const FIRST: u32 = 1;
/// `ResourceLogs.scope_logs` and `ScopeLogs.log_records`.
const SECOND: u32 = 2;
/// Both fields' keys are one byte long.
const KEY: usize = 1;

impl Frame {
    pub(super) fn new(resource: &Resource, scope: &InstrumentationScope) -> Self {
        let field = |message: Vec<u8>| {
            let mut out = Vec::with_capacity(message.len() + 4);
            header(FIRST, message.len(), &mut out);
            out.extend_from_slice(&message);
            out
        };
        Self { resource: field(resource.encode_to_vec()), scope: field(scope.encode_to_vec()) }
    }

    /// An `ExportLogsServiceRequest` with these records, each an encoded `LogRecord`.
    pub(super) fn request<'a>(&self, records: impl Iterator<Item = &'a [u8]> + Clone) -> Bytes {
        let scope_logs = self.scope.len() + records.clone().map(|record| size(record.len())).sum::<usize>();
        let resource_logs = self.resource.len() + size(scope_logs);
        let mut out = Vec::with_capacity(size(resource_logs));
        header(FIRST, resource_logs, &mut out);
        out.extend_from_slice(&self.resource);
        header(SECOND, scope_logs, &mut out);
        out.extend_from_slice(&self.scope);
        for record in records {
            header(SECOND, record.len(), &mut out);
            out.extend_from_slice(record);
        }
        out.into()
    }

    /// At least as much as a request has beside its records.
    pub(super) const fn overhead(&self) -> usize {
        // Two lengths of at most ten bytes, and their keys.
        self.resource.len() + self.scope.len() + 22
    }
}

/// What a record of so many bytes takes in a request.
pub(super) fn size(length: usize) -> usize {
    KEY + encoded_len_varint(length as u64) + length
}

fn header(field: u32, length: usize, out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use proptest::prelude::*;

    use super::*;
    use crate::encode::otel;
    use crate::event::{Source, StreamIdentity};

    proptest! {
        /// What is put together here is what the whole would be, encoded at once.
        #[test]
        fn a_frame_is_protobuf(tenant in ".{0,300}", names in prop::collection::vec(".{0,300}", 1..8)) {
            let resource = otel::resource(&StreamIdentity { source: Source::Genauth, tenant }, [("a", "b")]);
            let record = |name: &String| LogRecord { event_name: name.clone(), time_unix_nano: 7, ..LogRecord::default() };
            let log_records: Vec<_> = names.iter().map(record).collect();
            let encoded: Vec<_> = log_records.iter().map(Message::encode_to_vec).collect();
            let scope = otel::scope();
            let frame = Frame::new(&resource, &scope);
            let made = frame.request(encoded.iter().map(Vec::as_slice));
            prop_assert!(made.len() <= frame.overhead() + encoded.iter().map(|record| size(record.len())).sum::<usize>());
            let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }];
            let resource_logs = vec![ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() }];
            prop_assert_eq!(made, ExportLogsServiceRequest { resource_logs }.encode_to_vec());
        }
    }
}
