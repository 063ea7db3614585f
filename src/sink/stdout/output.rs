//! Writes lines, waits until there is room, and knows to the byte how far it came.

use std::fs::{File, FileType};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What a pipe that has room takes without a wait (`PIPE_BUF`).
const AT_ONCE: usize = 4096;
/// Between two looks at whether the write is still wanted.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Where lines go, and what is owed of one that was torn.
pub(super) struct Output<W = File> {
    /// Made when first needed, and kept.
    file: Option<W>,
    /// Whether it may have to wait for a reader: what is no file, and no device that takes or refuses at once.
    waits: bool,
    /// What of a torn line comes next, whoever writes: it belongs to what was written before.
    owed: Vec<u8>,
}

impl<W> Default for Output<W> {
    fn default() -> Self {
        Self { file: None, waits: true, owed: Vec::new() }
    }
}

impl Output {
    /// Writes whole lines; how many of them are written, and whether that is all. A line that is torn counts: its rest is
    /// written before anything else.
    pub(super) fn write(&mut self, bytes: &[u8], is_given_up: &AtomicBool) -> (usize, io::Result<()>) {
        if self.file.is_none() {
            match super::stdout_file() {
                Ok(file) => {
                    let at_once = |kind: FileType| kind.is_file() || kind.is_char_device() && !file.is_terminal();
                    self.waits = !file.metadata().is_ok_and(|metadata| at_once(metadata.file_type()));
                    self.file = Some(file);
                }
                Err(error) => return (0, Err(error)),
            }
        }
        self.write_lines(bytes, is_given_up)
    }
}

impl<W: Write + AsFd> Output<W> {
    fn write_lines(&mut self, bytes: &[u8], is_given_up: &AtomicBool) -> (usize, io::Result<()>) {
        let Some(file) = &mut self.file else { return (0, Err(io::ErrorKind::NotConnected.into())) };
        let is_given_up = self.waits.then_some(is_given_up);
        let (written, result) = write_all(file, &self.owed, is_given_up);
        self.owed.drain(..written);
        if result.is_err() {
            return (0, result);
        }
        let (written, result) = write_all(file, bytes, is_given_up);
        let (before, after) = bytes.split_at(written);
        let mut lines = memchr::memchr_iter(b'\n', before).count();
        if before.last().is_some_and(|last| *last != b'\n') {
            let end = after.iter().position(|byte| *byte == b'\n').map_or(after.len(), |place| place + 1);
            self.owed.extend_from_slice(&after[..end]);
            lines += 1;
        }
        (lines, result)
    }
}

/// How many bytes are written, and whether that is all. Waits for room, where that may be needed, until given up.
fn write_all<W: Write + AsFd>(file: &mut W, bytes: &[u8], is_given_up: Option<&AtomicBool>) -> (usize, io::Result<()>) {
    let mut written = 0;
    let mut write = || -> io::Result<()> {
        while written < bytes.len() {
            let room = is_given_up.map_or(Ok(usize::MAX), |is_given_up| room(file, is_given_up))?;
            let rest = &bytes[written..];
            match file.write(&rest[..rest.len().min(room)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Someone was quicker: there is no room after all.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && is_given_up.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        file.flush()
    };
    let result = write();
    (written, result)
}

/// Waits until something can be written; how much, without a wait in the write itself.
fn room<W: AsFd>(file: &W, is_given_up: &AtomicBool) -> io::Result<usize> {
    while !is_given_up.load(Ordering::Relaxed) {
        let mut looked = [PollFd::new(file, PollFlags::OUT)];
        match poll(&mut looked, Some(&LOOK)) {
            // An error is what the write will say.
            Ok(1..) => return Ok(AT_ONCE),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::Interrupted, "the lane that had it written was given up"))
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
