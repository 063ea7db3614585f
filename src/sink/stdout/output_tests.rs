//! Disks that fill up, pipes that say "later", and lanes that are given up: no line twice, none torn, none missing.

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::BorrowedFd;

use proptest::prelude::*;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::*;

/// Takes what it is told to take, and fails when it is told to.
struct Scripted {
    null: File,
    taken: Vec<u8>,
    /// How many bytes the next writes take; 0 fails.
    script: VecDeque<usize>,
    failures: usize,
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.script.pop_front() {
            Some(0) => {
                self.failures += 1;
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(most) => {
                let taken = most.min(bytes.len());
                self.taken.extend_from_slice(&bytes[..taken]);
                Ok(taken)
            }
            None => {
                self.taken.extend_from_slice(bytes);
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Scripted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }
}

/// A lane's part: what is not written yet is tried again, perhaps after others.
struct Part {
    lines: Vec<String>,
    said: usize,
}

proptest! {
    #[test]
    fn whatever_fails_each_line_is_written_once_and_whole(
        script in prop::collection::vec(prop_oneof![1 => Just(0_usize), 3 => 1..40_usize], 0..60),
        parts in prop::collection::vec(prop::collection::vec("[a-z]{0,12}", 1..6), 1..5),
        turns in prop::collection::vec(any::<prop::sample::Index>(), 120),
    ) {
        let null = File::options().write(true).open("/dev/null").expect("the null device");
        let scripted = Scripted { null, taken: Vec::new(), script: script.into(), failures: 0 };
        let mut output = Output { file: Some(scripted), waits: true, owed: Vec::new() };
        let named = |(of, lines): (usize, Vec<String>)| Part {
            lines: lines.into_iter().enumerate().map(|(n, line)| format!("{of} {n} {line}\n")).collect(),
            said: 0,
        };
        let mut parts: Vec<Part> = parts.into_iter().enumerate().map(named).collect();
        let mut expected: Vec<String> = parts.iter().flat_map(|part| part.lines.clone()).collect();
        let mut waiting: Vec<&mut Part> = parts.iter_mut().collect();
        for turn in turns {
            if waiting.is_empty() {
                break;
            }
            let index = turn.index(waiting.len());
            let part = &mut waiting[index];
            let bytes = part.lines[part.said..].concat();
            let (lines, result) = output.write_lines(bytes.as_bytes(), &AtomicBool::new(false));
            part.said += lines;
            if result.is_ok() {
                prop_assert_eq!(part.said, part.lines.len());
                waiting.remove(index);
            }
        }
        prop_assert!(waiting.is_empty(), "more turns than failures");
        // Nothing is owed once something came through.
        let written = String::from_utf8(output.file.expect("given").taken).expect("text");
        let mut written: Vec<String> = written.split_inclusive('\n').map(ToOwned::to_owned).collect();
        written.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(written, expected);
    }
}

fn pipe(flags: OFlags) -> (std::io::PipeReader, Output) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let before = fcntl_getfl(&writer).expect("flags");
    fcntl_setfl(&writer, before | flags).expect("set");
    let file = File::from(std::os::fd::OwnedFd::from(writer));
    (reader, Output { file: Some(file), waits: true, owed: Vec::new() })
}

/// Many times what a pipe holds, whether a neighbour has made it non-blocking or not.
#[test]
fn a_full_pipe_is_waited_for() {
    for flags in [OFlags::NONBLOCK, OFlags::empty()] {
        let (mut reader, mut output) = pipe(flags);
        let text: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
        let bytes = text.clone();
        let writer = std::thread::spawn(move || {
            let (lines, result) = output.write_lines(bytes.as_bytes(), &AtomicBool::new(false));
            (lines, result.is_ok())
        });
        let mut read = String::new();
        reader.read_to_string(&mut read).expect("text");
        assert_eq!(writer.join().expect("no panic"), (50_000, true));
        assert_eq!(read, text);
    }
}

/// Nobody reads, so the write would never end.
#[test]
fn a_write_ends_when_its_lane_is_given_up_and_the_next_goes_on_where_it_was() {
    let (mut reader, mut output) = pipe(OFlags::empty());
    let is_given_up = std::sync::Arc::new(AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&is_given_up);
    let line = |name: &str| format!("{name} {}\n", "x".repeat(1000));
    let bytes = line("first").repeat(200);
    let pipe = output.file.as_ref().expect("given").try_clone().expect("a descriptor");
    let writer = std::thread::spawn(move || {
        let (lines, result) = output.write_lines(bytes.as_bytes(), &seen);
        assert_eq!(result.expect_err("nobody reads").kind(), io::ErrorKind::Interrupted);
        (lines, output)
    });
    while poll(&mut [PollFd::new(&pipe, PollFlags::OUT)], Some(&Timespec::default())) != Ok(0) {
        std::thread::yield_now();
    }
    drop(pipe);
    is_given_up.store(true, Ordering::Relaxed);
    let (lines, mut output) = writer.join().expect("it ends");
    let reads = std::thread::spawn(move || {
        let mut read = String::new();
        reader.read_to_string(&mut read).expect("text");
        read
    });
    let second = line("second");
    let (more, result) = output.write_lines(second.as_bytes(), &AtomicBool::new(false));
    assert!(result.is_ok() && more == 1);
    drop(output);
    assert_eq!(reads.join().expect("it ends"), line("first").repeat(lines) + &second);
}

#[test]
fn a_reader_that_has_gone_is_an_error() {
    let (reader, mut output) = pipe(OFlags::NONBLOCK);
    drop(reader);
    let (lines, result) = output.write_lines(b"line\n", &AtomicBool::new(false));
    assert_eq!((lines, result.expect_err("gone").kind()), (0, io::ErrorKind::BrokenPipe));
}
