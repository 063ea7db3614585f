//! NDJSON on stdout: one line, one event. Delivered once write and flush have succeeded.
//!
//! Nothing is said twice in one run: a part that could be written only so far goes on behind that when it comes again,
//! and a line that was torn is ended first, whoever writes next. Waits for a slow reader without holding a thread in a
//! write: a lane that is given up has nothing written any more.

mod output;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::SinkError;
use crate::config::StdoutConfig;
use crate::encode;
use crate::event::{EventId, StreamContext};
use crate::normalize::normalize;
use crate::state::admit::New;
use output::Output;

/// Writes off the runtime's workers, so that a slow reader stops the lanes that write here and nothing else.
pub struct Stdout {
    config: StdoutConfig,
    /// Locked for as long as a part is being written, also when the lane that it is of has been given up.
    lines: Arc<Mutex<Lines>>,
}

/// What has been said, and what is to be.
#[derive(Default)]
struct Lines {
    output: Output,
    /// The bytes of one part, their memory kept from part to part.
    bytes: Vec<u8>,
    /// By stream: a part that was written in part, and how many of its lines.
    unfinished: HashMap<String, (Vec<EventId>, usize)>,
}

/// The bytes of a part whose memory is kept: of most parts.
const KEPT: usize = 4 << 20;

/// Ends a write when the lane that waits for it is given up.
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Stdout {
    pub(super) fn new(config: StdoutConfig) -> Self {
        Self { config, lines: Arc::default() }
    }

    pub(super) async fn deliver(&self, stream: &StreamContext, part: &[New]) -> Result<(), SinkError> {
        if part.is_empty() {
            return Ok(());
        }
        let mut lines = Arc::clone(&self.lines).lock_owned().await;
        let ids: Vec<EventId> = part.iter().map(|new| new.admitted.id).collect();
        let said = lines.said(&stream.name, &ids);
        lines.bytes.clear();
        for new in &part[said..] {
            let event = normalize(stream, &new.admitted);
            encode::encode(self.config.format, self.config.raw, &event, &mut lines.bytes);
            lines.bytes.push(b'\n');
        }
        let given_up = GivenUp(Arc::default());
        let (name, is_given_up) = (stream.name.clone(), Arc::clone(&given_up.0));
        let write = move || say(lines, name, ids, said, &is_given_up);
        let result = tokio::task::spawn_blocking(write).await;
        drop(given_up);
        result.map_err(|error| SinkError::Io(io::Error::other(error)))?.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => SinkError::Closed,
            _ => SinkError::Io(error),
        })
    }
}

impl Lines {
    /// How many lines of this part were written before.
    fn said(&self, stream: &str, ids: &[EventId]) -> usize {
        self.unfinished.get(stream).filter(|(part, _)| *part == ids).map_or(0, |(_, said)| *said)
    }
}

/// Writes the lines of a part that are not said yet; `said` are. Keeps the lock for as long as that takes.
fn say(
    mut lines: OwnedMutexGuard<Lines>,
    stream: String,
    ids: Vec<EventId>,
    said: usize,
    is_given_up: &AtomicBool,
) -> io::Result<()> {
    let Lines { output, bytes, unfinished } = &mut *lines;
    let (more, result) = output.write(bytes, is_given_up);
    if bytes.capacity() > KEPT {
        *bytes = Vec::new();
    }
    match &result {
        Ok(()) => drop(unfinished.remove(&stream)),
        Err(_) => drop(unfinished.insert(stream, (ids, said + more))),
    }
    result
}

/// Past the standard library's line buffer, which would copy every part once more and look for line ends in it.
fn stdout_file() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Whether stdout was closed when the process began. The standard library opens the null device in its place, for
/// reading and writing. A shell's `> /dev/null` is for writing alone, and who starts a process with nothing on stdin or
/// stderr either mostly gives it one opened device for both. (So does the standard library if both were closed: that
/// cannot be told apart.)
#[must_use]
pub fn was_closed() -> bool {
    stdout_file().is_ok_and(|stdout| is_null(&stdout) && is_for_both(&stdout) && !is_shared(&stdout))
}

fn is_null(stdout: &File) -> bool {
    let (Ok(stdout), Ok(null)) = (stdout.metadata(), std::fs::metadata("/dev/null")) else { return false };
    stdout.file_type().is_char_device() && stdout.rdev() == null.rdev()
}

fn is_for_both(stdout: &File) -> bool {
    fcntl_getfl(stdout).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::RDWR)
}

/// Whether stdin or stderr is the same opened device: a flag that is turned in one turns in the other.
fn is_shared(stdout: &File) -> bool {
    let Ok(flags) = fcntl_getfl(stdout) else { return false };
    let (stdin, stderr) = (io::stdin(), io::stderr());
    let appends = || [fcntl_getfl(&stdin), fcntl_getfl(&stderr)].map(|flags| flags.map(|f| f & OFlags::APPEND));
    let before = appends();
    let turned = fcntl_setfl(stdout, flags ^ OFlags::APPEND);
    let is_shared = turned.is_ok() && appends() != before;
    let _ = fcntl_setfl(stdout, flags);
    is_shared
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
