//! One line of the journal: `crc32 in hexadecimal, a space, JSON, a line feed`.
//!
//! A line whose checksum is wrong was never written to its end; it is skipped. Texts in JSON cannot hold a raw line
//! feed, so a torn line never swallows the next one.

use serde::{Deserialize, Serialize};

use crate::budget::command::{Charge, LeaseId, NodeId, Op};
use crate::budget::entry::Row;
use crate::types::money::NanoUsd;

/// Money that was set aside for one upstream attempt, and all that is needed to charge it should nobody settle it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub lease: LeaseId,
    pub amount: NanoUsd,
    #[serde(default)]
    pub tokens: u64,
    pub charges: Vec<Charge>,
    /// The lease of this replica that the money is part of; `None`: `lease` is one of the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<LeaseId>,
    pub row: Row,
}

/// Opens a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// As the store knows this journal.
    pub node: NodeId,
    /// The store's number of a command is the journal's minus this.
    pub base: u64,
    /// The number of the first command that may follow.
    pub next: u64,
    /// The store had confirmed all commands up to this one.
    pub acked: u64,
}

/// What a line can say.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Record {
    Segment(Header),
    /// The store is about to be asked for this lease; nothing is sent upstream yet. Also a slice, until it is closed.
    Asking {
        lease: LeaseId,
    },
    /// The call may go upstream from here on.
    Reserved(Pending),
    /// The reservation grew.
    Extended {
        lease: LeaseId,
        amount: NanoUsd,
    },
    /// The lease or reservation is over, and the store need not be told.
    Ended {
        lease: LeaseId,
    },
    /// A numbered command, and which lease or reservation it is the end of.
    Op {
        number: u64,
        #[serde(default)]
        ends: Option<LeaseId>,
        op: Op,
    },
    /// The store has confirmed all commands up to this one.
    Acked {
        number: u64,
    },
}

#[derive(Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
enum Line<'a> {
    Segment(&'a Header),
    Asking { lease: &'a LeaseId },
    Reserved(&'a Pending),
    Extended { lease: &'a LeaseId, amount: NanoUsd },
    Ended { lease: &'a LeaseId },
    Acked { number: u64 },
}

#[derive(Serialize)]
struct OpBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ends: Option<&'a LeaseId>,
    op: &'a Op,
}

/// Bytes before the JSON.
const PREFIX: usize = 9;

#[must_use]
pub fn segment(header: &Header) -> Vec<u8> {
    line(&Line::Segment(header))
}

#[must_use]
pub fn asking(lease: &LeaseId) -> Vec<u8> {
    line(&Line::Asking { lease })
}

#[must_use]
pub fn reserved(pending: &Pending) -> Vec<u8> {
    line(&Line::Reserved(pending))
}

#[must_use]
pub fn extended(lease: &LeaseId, amount: NanoUsd) -> Vec<u8> {
    line(&Line::Extended { lease, amount })
}

#[must_use]
pub fn ended(lease: &LeaseId) -> Vec<u8> {
    line(&Line::Ended { lease })
}

#[must_use]
pub fn acked(number: u64) -> Vec<u8> {
    line(&Line::Acked { number })
}

/// The JSON of a command without its number, which is known only once the journal is locked.
#[must_use]
pub fn op_body(op: &Op, ends: Option<&LeaseId>) -> Vec<u8> {
    let mut body = Vec::with_capacity(512);
    write_json(&mut body, &OpBody { ends, op });
    body
}

/// A command's line, of [`op_body`] and its number.
#[must_use]
pub fn op(number: u64, body: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(body.len() + 64);
    line.resize(PREFIX, b' ');
    line.extend_from_slice(br#"{"is":"op","number":"#);
    line.extend_from_slice(number.to_string().as_bytes());
    line.push(b',');
    line.extend_from_slice(body.strip_prefix(b"{").unwrap_or(body));
    seal(line)
}

/// Reads a line without its line feed; `None` when it is torn or damaged.
#[must_use]
pub fn read(line: &[u8]) -> Option<Record> {
    let (prefix, json) = line.split_at_checked(PREFIX)?;
    let sum = std::str::from_utf8(prefix.strip_suffix(b" ")?).ok()?;
    if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn line(record: &Line<'_>) -> Vec<u8> {
    let mut line = Vec::with_capacity(512);
    line.resize(PREFIX, b' ');
    write_json(&mut line, record);
    seal(line)
}

/// Serializing types with string keys into memory cannot fail; if it did, the line would be read as damaged.
fn write_json(into: &mut Vec<u8>, value: &impl Serialize) {
    if let Err(error) = serde_json::to_writer(into, value) {
        tracing::error!("a journal record cannot be written as JSON: {error}");
    }
}

fn seal(mut line: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(line.get(PREFIX..).unwrap_or_default());
    let sum = format!("{sum:08x}");
    for (place, digit) in line.iter_mut().zip(sum.bytes()) {
        *place = digit;
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_feed(line: &[u8]) -> Option<usize> {
        line.iter().position(|byte| *byte == b'\n')
    }

    fn pending() -> Pending {
        Pending {
            lease: LeaseId::new("call.0"),
            amount: NanoUsd(7),
            tokens: 3,
            charges: Vec::new(),
            slice: None,
            row: Row { request_id: "line\nfeed \u{1F600}".to_owned(), ..Row::default() },
        }
    }

    #[test]
    fn every_record_is_read_as_it_was_written() {
        let lease = LeaseId::new("call.0");
        let header = Header { node: NodeId::new("node"), base: 3, next: 9, acked: 8 };
        let close = Op::Close { lease: lease.clone() };
        for (line, record) in [
            (segment(&header), Record::Segment(header.clone())),
            (asking(&lease), Record::Asking { lease: lease.clone() }),
            (reserved(&pending()), Record::Reserved(pending())),
            (extended(&lease, NanoUsd(9)), Record::Extended { lease: lease.clone(), amount: NanoUsd(9) }),
            (ended(&lease), Record::Ended { lease: lease.clone() }),
            (acked(5), Record::Acked { number: 5 }),
            (
                op(12, &op_body(&close, Some(&lease))),
                Record::Op { number: 12, ends: Some(lease.clone()), op: close.clone() },
            ),
            (op(13, &op_body(&close, None)), Record::Op { number: 13, ends: None, op: close.clone() }),
        ] {
            assert_eq!(line_feed(&line), Some(line.len() - 1));
            assert_eq!(read(line.strip_suffix(b"\n").unwrap()), Some(record));
        }
    }

    #[test]
    fn a_line_torn_or_altered_anywhere_is_no_record() {
        let line = reserved(&pending());
        let line = line.strip_suffix(b"\n").unwrap();
        for end in 0..line.len() {
            assert_eq!(read(&line[..end]), None, "torn at {end}");
        }
        for at in 0..line.len() {
            let mut altered = line.to_vec();
            altered[at] ^= 1;
            // The first digits may only change their case, which means the same.
            if !altered[at].eq_ignore_ascii_case(&line[at]) {
                assert_eq!(read(&altered), None, "altered at {at}");
            }
        }
    }
}
