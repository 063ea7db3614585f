//! NDJSON on stdout: one line, one event. Delivered once write and flush have succeeded.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use tokio::sync::Mutex;

use super::SinkError;
use crate::config::StdoutConfig;
use crate::encode;
use crate::event::StreamContext;
use crate::normalize::normalize;
use crate::state::admit::New;

/// Writes off the runtime's workers, so that a slow reader stops the lanes that write here and nothing else.
pub struct Stdout {
    config: StdoutConfig,
    /// Locked for as long as a part is being written.
    lines: Mutex<Lines>,
}

/// The bytes of one part, their memory kept from part to part.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// The last write failed inside a line.
    torn: bool,
}

impl Stdout {
    pub(super) fn new(config: StdoutConfig) -> Self {
        Self { config, lines: Mutex::default() }
    }

    pub(super) async fn deliver(&self, stream: &StreamContext, part: &[New]) -> Result<(), SinkError> {
        if part.is_empty() {
            return Ok(());
        }
        let mut kept = self.lines.lock().await;
        let mut lines = std::mem::take(&mut *kept);
        lines.bytes.clear();
        if lines.torn {
            lines.bytes.push(b'\n');
        }
        for new in part {
            encode::encode(self.config.format, self.config.raw, &normalize(stream, &new.admitted), &mut lines.bytes);
            lines.bytes.push(b'\n');
        }
        let write = tokio::task::spawn_blocking(move || {
            let result = lines.write();
            (lines, result)
        });
        let (lines, result) = write.await.map_err(|error| SinkError::Io(io::Error::other(error)))?;
        *kept = lines;
        result.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => SinkError::Closed,
            _ => SinkError::Io(error),
        })
    }
}

impl Lines {
    fn write(&mut self) -> io::Result<()> {
        let mut file = stdout_file()?;
        let mut written = 0;
        while written < self.bytes.len() {
            match file.write(&self.bytes[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.torn = if written > 0 { self.bytes[written - 1] != b'\n' } else { self.torn };
                    return Err(error);
                }
            }
        }
        self.torn = false;
        file.flush()
    }
}

/// Past the standard library's line buffer, which would copy every part once more and look for line ends in it.
fn stdout_file() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// If stdout is a file that another run was killed while writing to, its last line has no end. Ends it, so that
/// the first event of this run does not continue it. The torn event was not delivered: it comes again, whole.
///
/// # Errors
/// The file cannot be written to.
pub fn end_torn_line() -> io::Result<()> {
    let mut file = stdout_file()?;
    let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map_or(0, |metadata| metadata.len());
    if length == 0 {
        return Ok(());
    }
    // Opened once more: the shell's `>>` opens for writing alone. A file that cannot be looked at is left alone.
    let Ok(mut readable) = File::open("/proc/self/fd/1") else { return Ok(()) };
    let mut last = [0];
    let looked = readable.seek(SeekFrom::Start(length - 1)).and_then(|_| readable.read_exact(&mut last));
    if looked.is_ok() && last != *b"\n" { file.write_all(b"\n") } else { Ok(()) }
}
