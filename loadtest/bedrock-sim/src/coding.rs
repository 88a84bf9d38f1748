//! Content codings on demand: AWS compresses no answer that asks for `identity`, but a proxy in between might. Every
//! piece is flushed, so that it can be read when it arrives, as a compressing server has to do for a stream.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Payload};

/// What the body of an answer is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    Gzip,
    /// The zlib format.
    Deflate,
    /// Says `br`, and leaves the bytes as they are: for who cannot read it anyway.
    Br,
}

impl Coding {
    /// `answer`, compressed. Its frames are no pieces of the body any more.
    pub fn apply(self, answer: &Answer) -> io::Result<Answer> {
        let payload = match &answer.payload {
            Payload::Whole(body) => Payload::Whole(self.encode(std::slice::from_ref(body))?.concat().into()),
            Payload::Frames(pieces) | Payload::Events(pieces) => Payload::Events(self.encode(pieces)?),
        };
        let mut headers = answer.headers.clone();
        headers.push(("content-encoding", self.name().to_owned()));
        Ok(Answer { headers, payload, ..answer.clone() })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Br => "br",
        }
    }

    /// As many pieces as there were, and the end of the coding.
    fn encode(self, pieces: &[Bytes]) -> io::Result<Vec<Bytes>> {
        let mut coded = Vec::with_capacity(pieces.len() + 1);
        match self {
            Self::Gzip => {
                let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
                for piece in pieces {
                    gzip.write_all(piece)?;
                    gzip.flush()?;
                    coded.push(std::mem::take(gzip.get_mut()).into());
                }
                coded.push(gzip.finish()?.into());
            }
            Self::Deflate => {
                let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
                for piece in pieces {
                    zlib.write_all(piece)?;
                    zlib.flush()?;
                    coded.push(std::mem::take(zlib.get_mut()).into());
                }
                coded.push(zlib.finish()?.into());
            }
            Self::Br => coded.extend_from_slice(pieces),
        }
        Ok(coded)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::{GzDecoder, ZlibDecoder};

    use super::*;

    #[test]
    fn a_compressed_answer_says_so_and_reads_back() {
        let pieces = vec![Bytes::from_static(b"first "), Bytes::from_static(b"second")];
        let answer = Answer {
            status: 200,
            content_type: "text/plain".to_owned(),
            headers: Vec::new(),
            payload: Payload::Frames(pieces.clone()),
        };
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Br] {
            let compressed = coding.apply(&answer).unwrap();
            let Payload::Events(encoded) = compressed.payload else { panic!("still frames") };
            assert_eq!(compressed.headers, [("content-encoding", coding.name().to_owned())]);
            let bytes = encoded.concat();
            let mut text = String::new();
            match coding {
                Coding::Gzip => GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap(),
                Coding::Deflate => ZlibDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap(),
                Coding::Br => bytes.as_slice().read_to_string(&mut text).unwrap(),
            };
            assert_eq!(text, "first second");
        }
    }
}
