//! The database of the file store: made whole or not at all, opened only if each of its pages is what was written.

use std::any::Any;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Builder, Database, Error, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::seen::Standing;
use super::{file_error, sealed};
use crate::checkpoint::CheckpointError;
use crate::private;

/// The newest format of the file that this version reads, and the one that it writes.
const FORMAT: u64 = 2;
/// The format whose values had no checksum; the only other one that is read.
const UNSEALED: u64 = 1;
/// Stated limit of the memory that the store may hold; cursors in use are held by their lanes.
const CACHE_BYTES: usize = 4 << 20;
/// How many entries of format 1 are taken over at once.
const TOGETHER: usize = 10_000;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const UNSEALED_ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
/// See [`sealed`].
pub(super) const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("sealed");

/// Makes a database that holds nothing. It has its name only once it is whole and on the disk.
pub(super) fn make(folder: &Path, path: &Path) -> Result<(), CheckpointError> {
    let unborn = folder.join("trailcast.redb.new");
    let removed = || match fs::remove_file(&unborn) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Io(error)),
        _ => Ok(()),
    };
    let made = caught(|| {
        removed()?;
        // It is redb's to open; what is there already keeps its rights.
        drop(private::options().write(true).create_new(true).open(&unborn)?);
        let database = builder().create(&unborn)?;
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert("format", FORMAT)?;
            meta.insert("identity", rand::random::<u64>())?;
            meta.insert("commits", 0)?;
            // Made here, so that a read never finds it missing.
            transaction.open_table(ENTRIES)?;
        }
        transaction.commit()?;
        drop(database);
        // What could not be written when it was closed is found out here.
        drop(builder().open(&unborn)?);
        File::open(&unborn)?.sync_all()?;
        fs::rename(&unborn, path)?;
        Ok(())
    });
    made.map_err(|error| {
        // A rest that cannot be removed is in nobody's way.
        let _ = removed();
        file_error("make", path, error)
    })
}

/// Opens a database that is there, and takes one of an earlier format over.
pub(super) fn open(path: &Path) -> Result<Database, CheckpointError> {
    let opened = caught(|| {
        let database = builder().open(path)?;
        let found = match database.begin_read()?.open_table(META) {
            Ok(meta) => meta.get("format")?.map(|format| format.value()),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        match found {
            Some(UNSEALED | FORMAT) => take_over(&database)?,
            Some(_) => {}
            None => return Err(Error::Corrupted("it holds no state of trailcast's".to_owned())),
        }
        Ok((database, found))
    });
    match opened {
        Ok((database, Some(UNSEALED | FORMAT))) => Ok(database),
        Ok((_, found)) => {
            Err(CheckpointError::Newer { path: path.to_owned(), found: found.unwrap_or(0), known: FORMAT })
        }
        Err(error) => Err(file_error("open", path, error)),
    }
}

/// Every page is looked at, whoever wrote it: a file that was closed well is believed by redb otherwise.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Seals what an earlier version stored. Ended half-way, it goes on where it was.
fn take_over(database: &Database) -> Result<(), Error> {
    loop {
        let old: Vec<(Vec<u8>, Vec<u8>)> = match database.begin_read()?.open_table(UNSEALED_ENTRIES) {
            Ok(entries) => {
                let mut some = Vec::new();
                for entry in entries.iter()?.take(TOGETHER) {
                    let (key, value) = entry?;
                    some.push((key.value().to_vec(), value.value().to_vec()));
                }
                some
            }
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert("format", FORMAT)?;
            let is_new = meta.get("identity")?.is_none();
            if is_new {
                meta.insert("identity", rand::random::<u64>())?;
                meta.insert("commits", 0)?;
            }
            let mut entries = transaction.open_table(ENTRIES)?;
            let mut unsealed = transaction.open_table(UNSEALED_ENTRIES)?;
            for (key, value) in &old {
                entries.insert(key.as_slice(), sealed::seal(key, value).as_slice())?;
                unsealed.remove(key.as_slice())?;
            }
        }
        if old.is_empty() {
            transaction.delete_table(UNSEALED_ENTRIES)?;
        }
        transaction.commit()?;
    }
}

/// Which state it is, and how far.
pub(super) fn standing(database: &Database) -> Result<Standing, Error> {
    let meta = database.begin_read()?.open_table(META)?;
    let number = |name| meta.get(name).map(|number| number.map(|number| number.value()));
    let missing = || Error::Corrupted("it does not say which state it is".to_owned());
    Ok(Standing {
        identity: number("identity")?.ok_or_else(missing)?,
        commits: number("commits")?.ok_or_else(missing)?,
    })
}

/// One commit more; the standing once `transaction` is committed.
pub(super) fn count(transaction: &redb::WriteTransaction) -> Result<Standing, Error> {
    let mut meta = transaction.open_table(META)?;
    let number = |number: Option<redb::AccessGuard<'_, u64>>| number.map(|number| number.value()).unwrap_or_default();
    let identity = number(meta.get("identity")?);
    let commits = number(meta.get("commits")?) + 1;
    meta.insert("commits", commits)?;
    Ok(Standing { identity, commits })
}

/// A page that makes no sense makes redb panic in places; to us that is damage like any other.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Error::Corrupted(said(&*panic))))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a page makes no sense ({})", text.unwrap_or("no more is known"))
}
