//! Takes `application/vnd.amazon.eventstream` frames out of content, however it is cut: total length, header length,
//! CRC-32 of those eight bytes, headers, payload, CRC-32 of all before; big-endian. Checksums are checked of the first
//! frame of a stream and each hundredth after it: they cost more than the rest.

use memchr::memmem::find;

use crate::fault::Fault;

const PRELUDE_LEN: usize = 12;
const CRC_LEN: usize = 4;
/// No AWS frame comes near this; a longer declared length is taken for damage.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
const CHECK_EVERY: u64 = 100;
/// What stands before the time in a payload, and how many digits it has.
const STAMP: &[u8] = b"\"t=";
const STAMP_DIGITS: usize = 20;

/// The frames of one stream.
#[derive(Debug, Default)]
pub struct Frames {
    /// A frame that is not complete.
    pending: Vec<u8>,
    count: u64,
}

/// A complete frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub headers: &'a [u8],
    pub payload: &'a [u8],
    pub checked: bool,
}

impl Frame<'_> {
    /// The time that the sender wrote into the payload, in nanoseconds.
    pub fn sent_ns(&self) -> Option<u64> {
        let digits_at = find(self.payload, STAMP)? + STAMP.len();
        let digits = self.payload.get(digits_at..digits_at + STAMP_DIGITS)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    pub fn is_exception(&self) -> bool {
        find(self.headers, b":exception-type").or_else(|| find(self.headers, b":error-code")).is_some()
    }
}

impl Frames {
    /// Adds content and gives each frame that is complete now to `each`.
    ///
    /// # Errors
    /// When it is no event stream, or `each` fails.
    pub fn read(&mut self, content: &[u8], mut each: impl FnMut(&Frame<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
        self.pending.extend_from_slice(content);
        let mut taken = 0;
        while let Some(total) = self.pending.get(taken..).and_then(total_len) {
            if !(PRELUDE_LEN + CRC_LEN..=FRAME_BYTES_MAX).contains(&total) {
                return Err(Fault::Frame("impossible length"));
            }
            let Some(raw) = self.pending.get(taken..taken + total) else { break };
            let checked = self.count.is_multiple_of(CHECK_EVERY);
            each(&frame(raw, checked)?)?;
            self.count += 1;
            taken += total;
        }
        self.pending.drain(..taken);
        Ok(())
    }

    /// Whether the content may end here.
    pub fn is_between_frames(&self) -> bool {
        self.pending.is_empty()
    }
}

fn total_len(bytes: &[u8]) -> Option<usize> {
    usize::try_from(read_u32(bytes, 0)?).ok()
}

fn frame(raw: &[u8], checked: bool) -> Result<Frame<'_>, Fault> {
    let impossible = Fault::Frame("impossible length of headers");
    let headers_len = read_u32(raw, 4).and_then(|len| usize::try_from(len).ok()).ok_or(impossible.clone())?;
    let (covered, crc) = raw.split_at(raw.len() - CRC_LEN);
    if checked {
        let prelude = covered.get(..8).map(crc32fast::hash);
        if prelude != read_u32(raw, 8) || Some(crc32fast::hash(covered)) != read_u32(crc, 0) {
            return Err(Fault::Frame("a checksum does not match"));
        }
    }
    let content = covered.get(PRELUDE_LEN..).unwrap_or_default();
    let (headers, payload) = content.split_at_checked(headers_len).ok_or(impossible)?;
    Ok(Frame { headers, payload, checked })
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(headers: &[u8], payload: &[u8]) -> Vec<u8> {
        let len = |bytes: usize| u32::try_from(bytes).unwrap().to_be_bytes();
        let mut raw = [len(headers.len() + payload.len() + 16), len(headers.len())].concat();
        raw.extend(crc32fast::hash(&raw).to_be_bytes());
        raw.extend_from_slice(headers);
        raw.extend_from_slice(payload);
        raw.extend(crc32fast::hash(&raw).to_be_bytes());
        raw
    }

    fn stream() -> Vec<u8> {
        let event = |payload| encode(b"\x0b:event-type\x07\x00\x05delta", payload);
        [event(b"{}"), event(br#"{"text":"t=00000000000000000042"}"#), event(b"")].concat()
    }

    /// The times in the frames of `pieces`.
    fn times(pieces: &[&[u8]]) -> Result<Vec<Option<u64>>, Fault> {
        let (mut frames, mut times) = (Frames::default(), Vec::new());
        for piece in pieces {
            frames.read(piece, |frame| {
                times.push(frame.sent_ns());
                Ok(())
            })?;
        }
        assert!(frames.is_between_frames());
        Ok(times)
    }

    #[test]
    fn frames_are_the_same_however_the_bytes_are_cut() {
        let whole = stream();
        for at in 0..=whole.len() {
            let (head, tail) = whole.split_at(at);
            assert_eq!(times(&[head, tail]), Ok(vec![None, Some(42), None]), "{at}");
        }
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(times(&bytes).unwrap().len(), 3);
    }

    #[test]
    fn the_first_frame_of_a_stream_is_checked_and_then_each_hundredth() {
        let (mut frames, mut checked) = (Frames::default(), Vec::new());
        for index in 0..201 {
            let read = frames.read(&encode(b"", b"{}"), |frame| {
                checked.extend(frame.checked.then_some(index));
                Ok(())
            });
            read.unwrap();
        }
        assert_eq!(checked, [0, 100, 200]);
        let mut damaged = stream();
        damaged[20] ^= 1;
        assert_eq!(times(&[&damaged]), Err(Fault::Frame("a checksum does not match")));
    }

    #[test]
    fn exceptions_are_told_from_events() {
        let mut frames = Frames::default();
        let mut seen = Vec::new();
        let raw = [encode(b"\x0f:exception-type", b""), encode(b"\x0b:event-type", b":exception-type")].concat();
        let read = frames.read(&raw, |frame| {
            seen.push(frame.is_exception());
            Ok(())
        });
        read.unwrap();
        assert_eq!(seen, [true, false]);
    }
}
