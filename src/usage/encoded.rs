//! Reads through a content coding, so that a compressed answer is metered all the same. The bytes that pass are not
//! touched: this is a copy of them, beside the stream.
//!
//! `gzip` (several members too) and `deflate`, which is the zlib format: RFC 9110 §8.4.1. The proxy asks for `identity`,
//! so `br` and `zstd` would be a surprise, and are not read. Memory does not grow with what comes out, and an answer
//! that grows out of all proportion to its bytes is given up.

use std::io::Write;

use flate2::write::{MultiGzDecoder, ZlibDecoder};

/// So much input is read at once: at deflate's largest ratio, 1,032 to 1, it becomes a megabyte.
const STEP_BYTES: usize = 1024;
/// So many bytes may come out of any input, ...
const BYTES_FREE: u64 = 16 * 1024 * 1024;
/// ... and beyond them so many for each that went in. Event streams shrink by ten to thirty.
const RATIO_MAX: u64 = 100;

/// Undoes the content coding of one answer.
#[derive(Debug)]
pub(super) struct Inflater {
    decoder: Decoder,
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Debug)]
enum Decoder {
    Gzip(MultiGzDecoder<Vec<u8>>),
    Deflate(ZlibDecoder<Vec<u8>>),
}

/// What comes out is not the answer, or far too much.
#[derive(Debug)]
pub(super) struct Unreadable;

impl Inflater {
    /// `None` for codings that are not read.
    pub(super) fn of(content_encoding: &str) -> Option<Self> {
        let is = |name: &str| content_encoding.eq_ignore_ascii_case(name);
        let decoder = if is("gzip") || is("x-gzip") {
            Decoder::Gzip(MultiGzDecoder::new(Vec::new()))
        } else if is("deflate") {
            Decoder::Deflate(ZlibDecoder::new(Vec::new()))
        } else {
            return None;
        };
        Some(Self { decoder, bytes_in: 0, bytes_out: 0 })
    }

    /// Hands on what `bytes` say, all that can be known so far.
    pub(super) fn push(&mut self, bytes: &[u8], read: &mut impl FnMut(&[u8])) -> Result<(), Unreadable> {
        for step in bytes.chunks(STEP_BYTES) {
            self.bytes_in = self.bytes_in.saturating_add(step.len() as u64);
            let plain = match &mut self.decoder {
                Decoder::Gzip(decoder) => write(decoder, step).map(|()| decoder.get_mut()),
                Decoder::Deflate(decoder) => write(decoder, step).map(|()| decoder.get_mut()),
            }?;
            self.bytes_out = self.bytes_out.saturating_add(plain.len() as u64);
            if self.bytes_out > BYTES_FREE.saturating_add(self.bytes_in.saturating_mul(RATIO_MAX)) {
                return Err(Unreadable);
            }
            read(plain);
            plain.clear();
        }
        Ok(())
    }

    /// Whether the coding's own end has come, with the checksum it should have.
    pub(super) fn complete(mut self) -> bool {
        match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.try_finish().is_ok(),
            Decoder::Deflate(decoder) => decoder.try_finish().is_ok(),
        }
    }
}

/// Writes, and makes everything come out that can.
fn write(decoder: &mut impl Write, bytes: &[u8]) -> Result<(), Unreadable> {
    decoder.write_all(bytes).and_then(|()| decoder.flush()).map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// What comes out of the pieces, and whether the end has come; `None` where it cannot be read.
    fn inflate<'p>(coding: &str, pieces: impl IntoIterator<Item = &'p [u8]>) -> Option<(Vec<u8>, bool)> {
        let mut inflater = Inflater::of(coding).unwrap();
        let mut plain = Vec::new();
        for piece in pieces {
            inflater.push(piece, &mut |bytes| plain.extend_from_slice(bytes)).ok()?;
        }
        Some((plain, inflater.complete()))
    }

    #[test]
    fn codings_are_known_by_their_names() {
        for (name, known) in [
            ("gzip", true),
            ("GZIP", true),
            ("x-gzip", true),
            ("deflate", true),
            ("br", false),
            ("zstd", false),
            ("gzip, gzip", false),
            ("identity", false),
        ] {
            assert_eq!(Inflater::of(name).is_some(), known, "{name}");
        }
    }

    #[test]
    fn members_follow_each_other_and_a_missing_end_is_noticed() {
        let members = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        for size in [1, 7, 1_000] {
            assert_eq!(inflate("gzip", members.chunks(size)), Some((b"one two".to_vec(), true)), "{size}");
        }
        for whole in [gzip(b"some text"), deflate(b"some text")] {
            let coding = if whole.starts_with(&[0x1f]) { "gzip" } else { "deflate" };
            for at in 0..whole.len() {
                let (_, complete) = inflate(coding, [&whole[..at]]).unwrap();
                assert!(!complete, "{coding} cut at {at}");
            }
        }
    }

    #[test]
    fn each_piece_is_read_when_it_comes() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let mut inflater = Inflater::of("gzip").unwrap();
        for text in ["first", "second", "third"] {
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.flush().unwrap();
            let mut seen = Vec::new();
            inflater.push(&std::mem::take(encoder.get_mut()), &mut |bytes| seen.extend_from_slice(bytes)).unwrap();
            assert_eq!(seen, text.as_bytes());
        }
    }

    #[test]
    fn what_is_not_compressed_or_damaged_cannot_be_read() {
        assert_eq!(inflate("gzip", [&b"{\"usage\":{\"inputTokens\":1}}"[..]]), None);
        assert_eq!(inflate("deflate", [&b"{\"usage\":{\"inputTokens\":1}}"[..]]), None);
        let mut damaged = gzip(b"some text");
        *damaged.last_mut().unwrap() ^= 1;
        assert!(!inflate("gzip", [damaged.as_slice()]).is_some_and(|(_, complete)| complete));
    }

    #[test]
    fn a_bomb_is_given_up_and_takes_no_memory() {
        let zeros = vec![0; 1 << 20];
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        for _ in 0..64 {
            encoder.write_all(&zeros).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        let mut inflater = Inflater::of("gzip").unwrap();
        let (mut out, mut largest) = (0, 0);
        let read = inflater.push(&bomb, &mut |bytes| {
            out += bytes.len() as u64;
            largest = largest.max(bytes.len());
        });
        assert!(read.is_err());
        assert!(out <= BYTES_FREE + bomb.len() as u64 * RATIO_MAX, "{out}");
        assert!(largest <= 2 << 20, "{largest}");
    }

    proptest! {
        #[test]
        fn any_cut_of_any_text_reads_the_same(text in "[a-z{}\":0-9]{0,4000}", size in 1_usize..3_000) {
            for (coding, bytes) in [("gzip", gzip(text.as_bytes())), ("deflate", deflate(text.as_bytes()))] {
                prop_assert_eq!(inflate(coding, bytes.chunks(size)), Some((text.clone().into_bytes(), true)));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), size in 1_usize..100) {
            for start in [&[][..], &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], &[0x1f, 0x8b, 8, 0x1f], &[0x78, 0x9c]] {
                let bytes = [start, &bytes].concat();
                for coding in ["gzip", "deflate"] {
                    drop(inflate(coding, bytes.chunks(size)));
                }
            }
        }
    }
}
