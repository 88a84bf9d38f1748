//! Reads a journal: all of it once, to learn what was left open, and the commands from a number on, to send them again.
//!
//! A damaged line is skipped and reported. A command that is missing thereby is replaced by one without effect, because
//! the store takes numbers only without gaps.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use uuid::Uuid;

use super::Segment;
use super::record::{self, Pending, Record};
use crate::budget::command::{LeaseId, NodeId, Op};

/// Everything a journal says.
#[derive(Debug)]
pub struct Found {
    pub node: NodeId,
    pub base: u64,
    /// The number of the next command.
    pub next: u64,
    /// The store has confirmed all up to this one.
    pub acked: u64,
    /// Reservations without an end, and the segment that tells of them.
    pub open: HashMap<LeaseId, (u64, Pending)>,
    /// Leases that were asked for, never used for a call, and have no end.
    pub asking: HashMap<LeaseId, u64>,
    /// Oldest first.
    pub segments: Vec<Segment>,
}

/// A name under which the store knows a journal.
#[must_use]
pub fn fresh_node() -> NodeId {
    NodeId::new(Uuid::now_v7().simple().to_string())
}

/// Reads all segments of a slot.
///
/// # Errors
/// When the directory or a segment cannot be read. Damaged lines are no error.
pub fn scan(slot: &Path) -> io::Result<Found> {
    let mut found = Found {
        node: fresh_node(),
        base: 0,
        next: 1,
        acked: 0,
        open: HashMap::new(),
        asking: HashMap::new(),
        segments: Vec::new(),
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(slot)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log")
            && let Some(serial) = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok())
        {
            files.push((serial, path));
        }
    }
    files.sort_unstable();
    for (serial, path) in files {
        let touched = fs::metadata(&path)?.modified()?;
        let mut segment = Segment { serial, path, first: found.next, last: found.next.saturating_sub(1), touched };
        found.read_segment(&mut segment)?;
        found.segments.push(segment);
    }
    Ok(found)
}

impl Found {
    fn read_segment(&mut self, segment: &mut Segment) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(1 << 16, File::open(&segment.path)?);
        let mut line = Vec::new();
        let mut damaged = 0_u64;
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            // A line without its end is torn even if what there is of it happens to be right.
            let record = line.strip_suffix(b"\n").and_then(record::read);
            match record {
                Some(record) => self.take(record, segment),
                None => damaged += 1,
            }
        }
        if damaged > 0 {
            tracing::warn!("{}: {damaged} damaged or unfinished lines are skipped", segment.path.display());
        }
        Ok(())
    }

    fn take(&mut self, record: Record, segment: &mut Segment) {
        match record {
            Record::Segment(header) => {
                self.node = header.node;
                self.base = header.base;
                self.next = self.next.max(header.next);
                self.acked = self.acked.max(header.acked);
            }
            Record::Asking { lease } => {
                self.asking.insert(lease, segment.serial);
            }
            Record::Reserved(pending) => {
                self.asking.remove(&pending.lease);
                self.open.insert(pending.lease.clone(), (segment.serial, pending));
            }
            Record::Extended { lease, amount } => {
                if let Some((_, pending)) = self.open.get_mut(&lease) {
                    pending.amount = amount;
                }
            }
            Record::Ended { lease } => self.end(&lease),
            Record::Op { number, ends, .. } => {
                self.next = self.next.max(number + 1);
                segment.last = segment.last.max(number);
                if let Some(lease) = ends {
                    self.end(&lease);
                }
            }
            Record::Acked { number } => self.acked = self.acked.max(number),
        }
    }

    fn end(&mut self, lease: &LeaseId) {
        self.open.remove(lease);
        self.asking.remove(lease);
    }
}

/// Reads commands in order, going on where it stopped.
#[derive(Debug, Default)]
pub struct Replay {
    at: Option<(u64, BufReader<File>)>,
    /// Read already, and not asked for yet.
    ahead: Option<(u64, Op)>,
    next: u64,
}

impl Replay {
    /// Commands `from ..= until`, at most `max`. All of them are in `segments` unless damaged. Blocks.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn read(&mut self, segments: &[Segment], from: u64, until: u64, max: usize) -> io::Result<Vec<Op>> {
        if self.next != from {
            *self = Self { at: None, ahead: None, next: from };
        }
        let mut ops = Vec::new();
        while self.next <= until && ops.len() < max {
            if self.ahead.is_none() {
                self.ahead = self.find(segments)?;
            }
            match self.ahead.take() {
                Some((number, op)) if number == self.next => ops.push(op),
                later => {
                    tracing::error!("command {} of the journal cannot be read; its money is not booked", self.next);
                    self.ahead = later;
                    ops.push(Op::Close { lease: LeaseId::new(format!("unreadable.{}", Uuid::now_v7())) });
                }
            }
            self.next += 1;
        }
        Ok(ops)
    }

    /// The first command from `self.next` on.
    fn find(&mut self, segments: &[Segment]) -> io::Result<Option<(u64, Op)>> {
        let mut line = Vec::new();
        loop {
            if self.at.is_none() {
                let Some(segment) = segments.iter().find(|segment| segment.last >= self.next) else {
                    return Ok(None);
                };
                self.at = Some((segment.serial, BufReader::with_capacity(1 << 16, File::open(&segment.path)?)));
            }
            let Some((serial, reader)) = &mut self.at else { return Ok(None) };
            line.clear();
            if reader.read_until(b'\n', &mut line)? > 0 {
                match line.strip_suffix(b"\n").and_then(record::read) {
                    Some(Record::Op { number, op, .. }) if number >= self.next => return Ok(Some((number, op))),
                    _ => continue,
                }
            }
            let serial = *serial;
            let following = segments.iter().find(|segment| segment.serial > serial && segment.last >= self.next);
            let Some(segment) = following else {
                self.at = None;
                return Ok(None);
            };
            self.at = Some((segment.serial, BufReader::with_capacity(1 << 16, File::open(&segment.path)?)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(number: u64) -> Op {
        Op::Close { lease: LeaseId::new(number.to_string()) }
    }

    /// Segments with commands 1 to 30, ten each.
    fn segments(directory: &Path) -> Vec<Segment> {
        fs::create_dir_all(directory).unwrap();
        let write = |serial: u64| {
            let path = directory.join(format!("{serial:010}.log"));
            let first = serial * 10 + 1;
            let header =
                record::Header { node: NodeId::new("node"), base: 0, next: first, acked: first.saturating_sub(3) };
            let mut bytes = record::segment(&header);
            for number in first..first + 10 {
                record::op(&mut bytes, number, &record::op_body(&close(number), None));
            }
            fs::write(path, bytes).unwrap();
        };
        (0..3).for_each(write);
        scan(directory).unwrap().segments
    }

    #[test]
    fn commands_are_read_in_order_from_anywhere_across_segments() {
        let directory = std::env::temp_dir().join(format!("journal-{}", Uuid::now_v7()));
        let segments = segments(&directory);
        let found = scan(&directory).unwrap();
        assert_eq!((found.next, found.acked, found.segments.len()), (31, 18, 3));
        for from in 1..=30 {
            for step in [1, 7, 100] {
                let mut replay = Replay::default();
                let mut at = from;
                while at <= 28 {
                    let ops = replay.read(&segments, at, 28, step).unwrap();
                    assert!(!ops.is_empty() && ops.len() <= step);
                    for op in ops {
                        assert_eq!(op, close(at));
                        at += 1;
                    }
                }
            }
        }
        // Going back is allowed, too.
        let mut replay = Replay::default();
        assert_eq!(replay.read(&segments, 25, 30, 100).unwrap().len(), 6);
        assert_eq!(replay.read(&segments, 5, 30, 100).unwrap(), (5..=30).map(close).collect::<Vec<_>>());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_damaged_command_is_replaced_and_the_others_are_read() {
        let directory = std::env::temp_dir().join(format!("journal-{}", Uuid::now_v7()));
        let segments = segments(&directory);
        let path = &segments[1].path;
        let text = fs::read_to_string(path).unwrap();
        // Commands 15 and 20, the last of the segment.
        let damaged = text.replace(r#""lease":"15""#, r#""lease":"51""#).replace(r#""lease":"20""#, r#""lease":"02""#);
        fs::write(path, damaged).unwrap();
        let found = scan(&directory).unwrap();
        assert_eq!(found.next, 31);
        let ops = Replay::default().read(&found.segments, 1, 30, 100).unwrap();
        assert_eq!(ops.len(), 30);
        for (number, op) in (1..).zip(ops) {
            assert_eq!(op == close(number), number != 15 && number != 20, "{number}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
