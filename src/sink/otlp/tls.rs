//! The PEM files that `tls` names, read when a client is made: a client that failed is made anew, so files that were
//! replaced count then.

use std::path::Path;

use super::answer::OtlpError;
use crate::config::OtlpTls;
use crate::metrics::SinkReason;

pub(super) struct Pems {
    /// Trusted instead of the system's.
    pub(super) authorities: Option<Vec<u8>>,
    /// Our certificate and its key.
    pub(super) identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Pems {
    /// Blocks for as long as small files take.
    pub(super) fn read(tls: &OtlpTls) -> Result<Self, OtlpError> {
        let authorities = tls.ca_file.as_deref().map(|path| read("ca_file", path)).transpose()?;
        let identity = match (&tls.certificate_file, &tls.key_file) {
            (Some(certificate), Some(key)) => Some((read("certificate_file", certificate)?, read("key_file", key)?)),
            _ => None,
        };
        Ok(Self { authorities, identity })
    }

    pub(super) fn bad(key: &str, what: &str) -> OtlpError {
        OtlpError::new(SinkReason::Credentials, format!("tls.{key}: there is {what} in PEM in the file"))
    }
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, OtlpError> {
    std::fs::read(path).map_err(|error| {
        let message = format!("tls.{key}: cannot read `{}`: {error}", path.display());
        OtlpError::new(SinkReason::Credentials, message)
    })
}
