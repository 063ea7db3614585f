//! Dead letters on disk: nothing overwritten, nothing beyond the limit, nothing torn that counts.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::event::{Admitted, Fingerprint, StreamIdentity};

fn letter(record: &str) -> DeadLetter {
    let identity = StreamIdentity { source: Source::Genauth, tenant: "pool".to_owned() };
    let stream = StreamContext { identity, name: "users".to_owned() };
    let fingerprint = Fingerprint([7; 16]);
    let id = EventId::new(&stream.identity, fingerprint, 0);
    let admitted = Admitted { id, ordinal: 0, late: true, time: 1500, raw: Bytes::copy_from_slice(record.as_bytes()) };
    let new = New { admitted, fingerprint, placed: true };
    let refused =
        Refused { index: 0, reason: DeadLetterReason::TooLarge, sent: true, message: "Broker: too large".to_owned() };
    DeadLetter::new(&stream, "events", &new, &refused, 2000)
}

fn stored(folder: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_letter_says_all_and_is_read_back() {
    let letter = letter("{\"a\":\"\u{4e2d}\\n\"}");
    let json = letter.to_json();
    assert!(!json.contains(&b'\n'));
    let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((value["reason"].as_str(), value["sink"].as_str()), (Some("too_large"), Some("events")));
    assert_eq!((value["time"].as_str(), value["late"].as_bool()), (Some("1970-01-01T00:00:01.5Z"), Some(true)));
    assert_eq!(serde_json::from_slice::<DeadLetter>(&json).unwrap(), letter);
}

#[test]
fn as_much_of_the_record_as_fits() {
    let whole = letter(&"\u{4e2d}\"".repeat(2000));
    for most in [500, 1000, 5000, 7999] {
        let cut: DeadLetter = serde_json::from_slice(&whole.to_json_within(most)).unwrap();
        assert!(whole.to_json_within(most).len() <= most, "{most}");
        assert!(whole.record.starts_with(&cut.record) && cut.record_bytes == 8000);
        assert!(cut.to_json().len() > most * 4 / 5 || most < 1000, "{most}: {}", cut.to_json().len());
    }
    assert_eq!(whole.to_json_within(usize::MAX), whole.to_json());
}

#[test]
fn files_follow_each_other_and_the_whole_has_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("letters");
    let one = letter("x");
    let size = one.to_json().len() as u64 + 1;
    let files = LetterFiles::new(&folder, 2 * size, 5 * size);
    assert!(!folder.exists(), "made with the first letter");
    for _ in 0..2 {
        files.append(&[one.clone(), one.clone()]).unwrap();
    }
    files.append(std::slice::from_ref(&one)).unwrap();
    let before = stored(&folder);
    let lines: Vec<_> = before.iter().map(|(name, text)| (name.as_str(), text.lines().count())).collect();
    let expected =
        [("dead-letters-000001.ndjson", 2), ("dead-letters-000002.ndjson", 2), ("dead-letters-000003.ndjson", 1)];
    assert_eq!(lines, expected);
    assert!(matches!(files.append(std::slice::from_ref(&one)), Err(FilesError::Full { .. })));
    assert_eq!(stored(&folder), before, "nothing was changed");
    fs::remove_file(folder.join("dead-letters-000001.ndjson")).unwrap();
    files.append(std::slice::from_ref(&one)).unwrap();
    assert_eq!(stored(&folder)[1].1.lines().count(), 2, "room was made");
}

#[test]
fn a_torn_line_is_ended_before_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let files = LetterFiles::new(folder.path(), 1 << 20, 1 << 20);
    files.append(&[letter("x")]).unwrap();
    let path = folder.path().join("dead-letters-000001.ndjson");
    fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"id\":").unwrap();
    files.append(&[letter("y")]).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let whole: Vec<_> = text.lines().filter(|line| serde_json::from_str::<DeadLetter>(line).is_ok()).collect();
    assert_eq!((text.lines().count(), whole.len()), (3, 2), "{text}");
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    fs::write(&taken, "").unwrap();
    let error = LetterFiles::new(&taken, 1000, 1000).append(&[letter("x")]).unwrap_err();
    assert!(crate::words::chain(&error).contains("taken"), "{error}");
}

fn read(files: &LetterFiles) -> Vec<(At, DeadLetter)> {
    let mut letters = Vec::new();
    let visit = &mut |at, letter| {
        letters.push((at, letter));
        std::ops::ControlFlow::Continue(())
    };
    files.visit(visit).unwrap();
    letters
}

fn records(files: &LetterFiles) -> Vec<String> {
    read(files).into_iter().map(|(_, letter)| letter.record).collect()
}

#[test]
fn what_was_dealt_with_is_marked_and_taken_away_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (letter("x"), letter("y"));
    let size = one.to_json().len() as u64 + 1;
    let files = LetterFiles::new(folder.path(), 2 * size, 10 * size);
    assert_eq!(read(&files), []);
    files.append(&[one.clone(), other.clone()]).unwrap();
    files.append(std::slice::from_ref(&one)).unwrap();
    let path = folder.path().join("dead-letters-000001.ndjson");
    fs::write(&path, fs::read_to_string(&path).unwrap() + "torn\n").unwrap();
    assert_eq!(records(&files), ["x", "y", "x"]);
    let dealing = files.deal(|| panic!("nobody else does")).unwrap().unwrap();
    let done: Vec<At> = read(&files).into_iter().filter(|(_, letter)| letter.record == "x").map(|(at, _)| at).collect();
    files.mark(&done).unwrap();
    assert_eq!(records(&files), ["y"], "marked is gone, whatever comes now");
    assert_eq!(stored(folder.path()).len(), 2);
    // Marked twice is marked; another place is not overwritten.
    files.mark(&done).unwrap();
    let wrong = At { offset: done[0].offset + 1, ..done[0] };
    assert!(crate::words::chain(&files.mark(&[wrong]).unwrap_err()).contains("changed it meanwhile"));
    files.append(&[letter("z")]).unwrap();
    files.compact(&dealing).unwrap();
    assert_eq!(records(&files), ["y", "z"]);
    let left = stored(folder.path());
    assert!(left[0].1.ends_with("torn\n"), "what cannot be read stays");
    let all: Vec<At> = read(&files).into_iter().map(|(at, _)| at).collect();
    files.mark(&all).unwrap();
    files.compact(&dealing).unwrap();
    assert_eq!(stored(folder.path()).len(), 1, "a file with nothing in it goes");
    let (stream, new) = other.event();
    assert_eq!(new.admitted.id, other.id);
    assert_eq!((stream.name.as_str(), &new.admitted.raw[..]), ("users", &b"y"[..]));
}

/// A kill amid a character of a record harms that letter alone: in 0.1.0 it made all of them unreadable.
#[test]
fn what_is_torn_within_a_character_harms_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let files = LetterFiles::new(folder.path(), 1 << 20, 1 << 20);
    files.append(&[letter("x")]).unwrap();
    let path = folder.path().join("dead-letters-000001.ndjson");
    let torn = letter("\u{4e2d}").to_json();
    let at = torn.windows(3).position(|three| three == "\u{4e2d}".as_bytes()).unwrap() + 1;
    fs::write(&path, [&fs::read(&path).unwrap()[..], &torn[..at]].concat()).unwrap();
    assert!(std::str::from_utf8(&fs::read(&path).unwrap()).is_err());
    files.append(&[letter("y")]).unwrap();
    assert_eq!(records(&files), ["x", "y"]);
    let dealing = files.deal(|| {}).unwrap().unwrap();
    files.mark(&[read(&files)[0].0]).unwrap();
    files.compact(&dealing).unwrap();
    assert_eq!(records(&files), ["y"]);
}

/// The second one waits, and reads what the first has left.
#[test]
fn two_do_not_deal_with_the_same_letters() {
    let folder = tempfile::tempdir().unwrap();
    let files = LetterFiles::new(folder.path(), 1 << 20, 1 << 20);
    files.append(&[letter("x")]).unwrap();
    let first = files.deal(|| panic!("nobody else does")).unwrap().unwrap();
    let (waits, waited) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let other = LetterFiles::new(folder.path(), 1 << 20, 1 << 20);
            let _dealing = other.deal(|| waits.send(()).unwrap()).unwrap().unwrap();
            records(&other)
        });
        waited.recv().unwrap();
        files.mark(&[read(&files)[0].0]).unwrap();
        drop(first);
        assert_eq!(second.join().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn they_are_for_their_owner_alone_and_a_file_keeps_rights_that_somebody_gave_it() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("letters");
    let files = LetterFiles::new(&folder, 1 << 20, 1 << 20);
    files.append(&[letter("a"), letter("b")]).unwrap();
    let dealing = files.deal(|| {}).unwrap().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let all: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(all.len(), 3, "{all:?}");
    for file in all {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    let file = folder.join("dead-letters-000001.ndjson");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    files.mark(&[At { file: 1, offset: 0 }]).unwrap();
    files.compact(&dealing).unwrap();
    assert_eq!(mode(&file), 0o640, "rewritten");
    files.append(&[letter("c")]).unwrap();
    assert_eq!((mode(&file), mode(&folder)), (0o640, 0o700));
}
