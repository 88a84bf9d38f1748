//! One line of the journal: `crc32 in hexadecimal, a space, JSON, a line feed`.
//!
//! A line whose checksum is wrong was never written to its end; it is skipped. Texts in JSON cannot hold a raw line
//! feed, so a torn line never swallows the next one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::budget::command::{Charge, LeaseId, NodeId, Op};
use crate::budget::entry::{ROW_BYTES, Row};
use crate::types::json::{self, Object};
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
    pub row: Arc<Row>,
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
    Extended { lease: &'a LeaseId, amount: NanoUsd },
    Ended { lease: &'a LeaseId },
    Acked { number: u64 },
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
    let Pending { lease, amount, tokens, charges, slice, row } = pending;
    let mut line = Vec::with_capacity(ROW_BYTES);
    let begun = begin(&mut line);
    let mut object = Object::begin(&mut line);
    object.word("is", "reserved");
    object.text("lease", lease.as_str());
    object.number("amount", amount.0);
    object.number("tokens", *tokens);
    object.array("charges", charges, |out, charge| charge.write_json(out));
    object.optional_text("slice", slice.as_ref().map(LeaseId::as_str));
    row.write_json(object.field("row"));
    object.end();
    seal(&mut line, begun);
    line
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

/// The fields of a command's line after its number, which is known only once the journal is locked.
#[must_use]
pub fn op_body(op: &Op, ends: Option<&LeaseId>) -> Vec<u8> {
    let mut body = Vec::with_capacity(ROW_BYTES);
    body.push(b',');
    if let Some(lease) = ends {
        body.extend_from_slice(b"\"ends\":");
        json::text(&mut body, lease.as_str());
        body.push(b',');
    }
    body.extend_from_slice(b"\"op\":");
    written(op.write_json(&mut body));
    body.push(b'}');
    body
}

/// Appends a command's line, of its number and [`op_body`].
pub fn op(into: &mut Vec<u8>, number: u64, body: &[u8]) {
    let begun = begin(into);
    into.extend_from_slice(br#"{"is":"op","number":"#);
    json::number(into, number);
    into.extend_from_slice(body);
    seal(into, begun);
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
    let mut line = Vec::with_capacity(256);
    let begun = begin(&mut line);
    written(serde_json::to_writer(&mut line, record));
    seal(&mut line, begun);
    line
}

/// Serializing types with string keys into memory cannot fail; if it did, the line would be read as damaged.
fn written(result: serde_json::Result<()>) {
    if let Err(error) = result {
        tracing::error!("a journal record cannot be written as JSON: {error}");
    }
}

/// Leaves room for the checksum of a line; where the line begins.
fn begin(into: &mut Vec<u8>) -> usize {
    into.extend_from_slice(b"         ");
    into.len() - PREFIX
}

fn seal(into: &mut Vec<u8>, begun: usize) {
    let sum = crc32fast::hash(into.get(begun + PREFIX..).unwrap_or_default());
    let digits = (0..8).rev().map(|place| b"0123456789abcdef"[((sum >> (4 * place)) & 15) as usize]);
    for (place, digit) in into.iter_mut().skip(begun).zip(digits) {
        *place = digit;
    }
    into.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::command::{AccountId, Scope};

    /// As a line of its own.
    fn op(number: u64, body: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        super::op(&mut line, number, body);
        line
    }

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
            row: Row { request_id: "line\nfeed \u{1F600}".to_owned(), ..Row::default() }.into(),
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
    fn lines_of_earlier_versions_are_read() {
        let json = concat!(
            r#"{"is":"op","number":7,"ends":"call.0","op":{"op":"spend","lease":"call.0","close":true,"cost":6,"#,
            r#""tokens":3,"charges":[{"account":"key/k/total","scope":"key","limit":9}],"row":{"request_id":"call","#,
            r#""attempt":1,"key_id":"k","tags":["a"],"status":200}}}"#
        );
        let row = Row {
            request_id: "call".to_owned(),
            attempt: 1,
            key_id: "k".to_owned(),
            tags: vec!["a".to_owned()],
            status: 200,
            ..Row::default()
        };
        let account = AccountId::new("key/k/total");
        let charges = vec![Charge { account, scope: Scope::Key, limit: Some(NanoUsd(9)), forget_at_ms: None }];
        let lease = LeaseId::new("call.0");
        let spend = Op::Spend {
            lease: Some(lease.clone()),
            close: true,
            cost: NanoUsd(6),
            tokens: 3,
            charges: charges.clone(),
            row: row.clone().into(),
        };
        let line = format!("{:08x} {json}", crc32fast::hash(json.as_bytes()));
        let record = Record::Op { number: 7, ends: Some(lease.clone()), op: spend.clone() };
        assert_eq!(read(line.as_bytes()), Some(record));
        // And they are written as they were.
        assert_eq!(op(7, &op_body(&spend, Some(&lease))), format!("{line}\n").into_bytes());

        let json = concat!(
            r#"{"is":"reserved","lease":"call.0","amount":9,"tokens":3,"charges":[{"account":"key/k/total","#,
            r#""scope":"key","limit":9}],"slice":"slice.1","row":{"request_id":"call","attempt":1,"key_id":"k","#,
            r#""tags":["a"],"status":200}}"#
        );
        let slice = Some(LeaseId::new("slice.1"));
        let pending = Pending { lease, amount: NanoUsd(9), tokens: 3, charges, slice, row: row.into() };
        let line = format!("{:08x} {json}", crc32fast::hash(json.as_bytes()));
        assert_eq!(read(line.as_bytes()), Some(Record::Reserved(pending.clone())));
        assert_eq!(reserved(&pending), format!("{line}\n").into_bytes());
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
