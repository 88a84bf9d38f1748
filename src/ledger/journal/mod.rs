//! The journal of one replica: an append-only file, written with `write(2)` before a call goes upstream and when it
//! ends. Lines of one moment share a write, in their order. `kill -9` loses nothing of what is written. It is synced in
//! the background, so a loss of power takes at most the last 100 ms; nothing reaches the store before it is synced here.
//!
//! `<directory>/journal-<slot>/<serial>.log`, in segments of about 16 MB. A slot belongs to the process that holds the
//! lock on its `lock` file. What the lines mean is decided elsewhere (`backlog`).

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::budget::command::NodeId;

pub mod read;
pub mod record;

use read::Found;
use record::Header;

const SEGMENT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Room that is kept for the lines of one write.
const GATHERED_BYTES_KEPT: usize = 64 * 1024;

/// Rows name keys, users and tags: for the owner only.
const MODE: u32 = 0o600;

/// A segment that is not full is replaced all the same, so that what it holds can be deleted one day.
const SEGMENT_AGE_MAX: Duration = Duration::from_mins(5);

/// A store that fails over to a replica may lose this much, and gets it again.
pub const REPLAY_WINDOW: Duration = Duration::from_mins(10);

/// One file of the journal.
#[derive(Debug, Clone)]
pub struct Segment {
    pub serial: u64,
    pub path: PathBuf,
    /// No command in it has a lower number.
    pub first: u64,
    /// The last command up to its end; `first - 1` without any.
    pub last: u64,
    pub touched: SystemTime,
}

#[derive(Debug, Default)]
struct Gathered {
    bytes: Vec<u8>,
    lines: u64,
    /// The last command among them.
    last: Option<u64>,
}

/// Writes the journal. Holds the lock of its slot until it is dropped.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    _lock: File,
    node: NodeId,
    base: u64,
    file: Arc<File>,
    length: u64,
    begun: SystemTime,
    /// Since the header.
    lines: u64,
    /// Since it was opened.
    lines_written: u64,
    /// The last one is written to.
    segments: VecDeque<Segment>,
    /// Lines that are not written yet, in order.
    gathered: Gathered,
    /// The disk did not take the last write. While that is so, no money is set aside.
    failing: bool,
    /// The last line ends in the middle.
    torn: bool,
    /// The last command that stands in the file.
    written: u64,
    /// Files and directories with writes since they were synced.
    unsynced: Vec<Arc<File>>,
    #[cfg(test)]
    pub(super) disk_full: bool,
    #[cfg(test)]
    pub(super) writes: u64,
}

impl Journal {
    /// Takes a slot's lock; `None` when a living process has it.
    ///
    /// # Errors
    /// When the directory or the lock file cannot be made.
    pub fn lock(slot: &Path) -> io::Result<Option<File>> {
        fs::create_dir_all(slot)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(MODE).open(slot.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Goes on with a journal that was read, in a new segment.
    ///
    /// # Errors
    /// When the segment cannot be made.
    pub fn resume(slot: &Path, lock: File, found: &Found) -> io::Result<Self> {
        let placeholder = Arc::new(File::open(slot)?);
        let mut journal = Self {
            directory: slot.to_owned(),
            _lock: lock,
            node: found.node.clone(),
            base: found.base,
            file: placeholder,
            length: 0,
            begun: SystemTime::now(),
            lines: 0,
            lines_written: 0,
            segments: found.segments.iter().cloned().collect(),
            gathered: Gathered::default(),
            failing: false,
            torn: false,
            written: found.next.saturating_sub(1),
            unsynced: slot.parent().map(File::open).transpose()?.map(Arc::new).into_iter().collect(),
            #[cfg(test)]
            disk_full: false,
            #[cfg(test)]
            writes: 0,
        };
        journal.begin_segment(found.next, found.acked)?;
        Ok(journal)
    }

    #[must_use]
    pub const fn node(&self) -> &NodeId {
        &self.node
    }

    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// The last command that stands in the file; a later one waits for the disk.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// The lowest number that may still be read.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.segments.front().map_or(1, |segment| segment.first)
    }

    #[must_use]
    pub fn segments(&self) -> Vec<Segment> {
        self.segments.iter().cloned().collect()
    }

    /// The segment being written.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.serial)
    }

    /// Is known to the store under another name from now on: `number - base` of `node`.
    ///
    /// # Errors
    /// When that cannot be written; nothing has changed then.
    pub fn rename(&mut self, node: NodeId, base: u64, next: u64, acked: u64) -> io::Result<()> {
        let before = (std::mem::replace(&mut self.node, node), std::mem::replace(&mut self.base, base));
        let begun = self.begin_segment(next, acked);
        if begun.is_err() {
            (self.node, self.base) = before;
        }
        begun
    }

    /// Begins another segment if this one is old and has lines.
    ///
    /// # Errors
    /// When it cannot be made; the old one goes on.
    pub fn rotate_if_old(&mut self, now: SystemTime, next: u64, acked: u64) -> io::Result<()> {
        let age = now.duration_since(self.begun).unwrap_or_default();
        if age >= SEGMENT_AGE_MAX && self.lines > 0 && self.flush().is_ok() {
            self.begin_segment(next, acked)?;
        }
        Ok(())
    }

    /// Writes a line, after all that were gathered.
    ///
    /// # Errors
    /// When the disk does not take it; the line is not in the journal then.
    pub fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let before = self.gathered.bytes.len();
        self.gather(line);
        let written = self.flush();
        if written.is_err() {
            self.gathered.bytes.truncate(before);
            self.gathered.lines -= 1;
        }
        written
    }

    /// Keeps a line for the next write. Its place among all lines.
    pub fn gather(&mut self, line: &[u8]) -> u64 {
        self.gathered.bytes.extend_from_slice(line);
        self.gathered.lines += 1;
        self.lines_written + self.gathered.lines
    }

    /// As [`Self::gather`], for a command.
    pub fn gather_op(&mut self, number: u64, body: &[u8]) {
        record::op(&mut self.gathered.bytes, number, body);
        self.gathered.lines += 1;
        self.gathered.last = Some(number);
    }

    /// The place of the last line that is written.
    #[must_use]
    pub const fn lines_written(&self) -> u64 {
        self.lines_written
    }

    /// Writes what is gathered, all of it or nothing.
    ///
    /// # Errors
    /// When the disk does not take it; it stays gathered.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.gathered.bytes.is_empty() {
            return Ok(());
        }
        let written = self.write();
        if let Err(error) = &written
            && !self.failing
        {
            tracing::error!(
                "the journal in {} cannot be written ({error}); calls under a budget are refused until it can",
                self.directory.display()
            );
        } else if written.is_ok() && self.failing {
            tracing::info!("the journal in {} can be written again", self.directory.display());
        }
        self.failing = written.is_err();
        written
    }

    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.unsynced.is_empty() || !self.gathered.bytes.is_empty()
    }

    /// Files to sync, outside of any lock.
    #[must_use]
    pub fn unsynced(&mut self) -> Vec<Arc<File>> {
        std::mem::take(&mut self.unsynced)
    }

    /// They could not be synced.
    pub fn not_synced(&mut self, files: Vec<Arc<File>>) {
        self.unsynced.extend(files);
    }

    /// Segments at the beginning whose commands are all confirmed and that no failover can ask for again.
    #[must_use]
    pub fn expired(&self, now: SystemTime, confirmed: u64) -> Vec<u64> {
        let old = |segment: &&Segment| {
            segment.last <= confirmed && now.duration_since(segment.touched).is_ok_and(|age| age >= REPLAY_WINDOW)
        };
        let closed = self.segments.len().saturating_sub(1);
        self.segments.iter().take(closed).take_while(old).map(|segment| segment.serial).collect()
    }

    /// Deletes segments, oldest first.
    pub fn delete(&mut self, serials: &[u64]) {
        while let Some(segment) = self.segments.front().filter(|segment| serials.contains(&segment.serial)) {
            if let Err(error) = fs::remove_file(&segment.path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("{} cannot be deleted: {error}", segment.path.display());
                return;
            }
            self.segments.pop_front();
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.length >= SEGMENT_BYTES_MAX {
            let next = self.written + 1;
            if let Err(error) = self.begin_segment(next, 0) {
                tracing::warn!("no new segment of the journal can be begun, the old one grows: {error}");
            }
        }
        #[cfg(test)]
        if self.disk_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.torn {
            (&*self.file).write_all(b"\n")?;
            self.length += 1;
            self.torn = false;
        }
        if let Err(error) = (&*self.file).write_all(&self.gathered.bytes) {
            // Part of it may stand there. Cut it off, or else end its last line before the next begins; what stood
            // there whole is then read twice, which changes nothing.
            self.torn = self.file.set_len(self.length).is_err();
            return Err(error);
        }
        #[cfg(test)]
        {
            self.writes += 1;
        }
        let Gathered { bytes, lines, last } = &mut self.gathered;
        self.length += bytes.len() as u64;
        self.lines += *lines;
        self.lines_written += *lines;
        if let Some(number) = last.take() {
            self.written = number;
            if let Some(segment) = self.segments.back_mut() {
                segment.last = number;
            }
        }
        bytes.clear();
        bytes.shrink_to(GATHERED_BYTES_KEPT);
        *lines = 0;
        if self.unsynced.is_empty() || self.unsynced.last().is_some_and(|last| !Arc::ptr_eq(last, &self.file)) {
            self.unsynced.push(Arc::clone(&self.file));
        }
        Ok(())
    }

    fn begin_segment(&mut self, next: u64, acked: u64) -> io::Result<()> {
        let now = SystemTime::now();
        let serial = self.serial() + 1;
        let path = self.directory.join(format!("{serial:010}.log"));
        let mut file = OpenOptions::new().create_new(true).append(true).mode(MODE).open(&path)?;
        let header = record::segment(&Header { node: self.node.clone(), base: self.base, next, acked });
        if let Err(error) = file.write_all(&header) {
            // Without its header it would be read as damaged.
            if let Err(why) = fs::remove_file(&path) {
                tracing::warn!("{} cannot be deleted: {why}", path.display());
            }
            return Err(error);
        }
        if let Some(segment) = self.segments.back_mut()
            && self.lines > 0
        {
            segment.touched = now;
        }
        self.segments.push_back(Segment { serial, path, first: next, last: next.saturating_sub(1), touched: now });
        self.file = Arc::new(file);
        self.unsynced.push(Arc::clone(&self.file));
        self.unsynced.push(Arc::new(File::open(&self.directory)?));
        (self.length, self.begun, self.lines, self.torn) = (header.len() as u64, now, 0, false);
        Ok(())
    }
}

impl Drop for Journal {
    /// What nobody has written since. Should the disk not take it, calls are charged in full at the next start.
    fn drop(&mut self) {
        drop(self.flush());
    }
}

/// Syncs files. Blocks.
///
/// # Errors
/// Of the first that cannot be.
pub fn sync(files: &[Arc<File>]) -> io::Result<()> {
    files.iter().try_for_each(|file| file.sync_data())
}
