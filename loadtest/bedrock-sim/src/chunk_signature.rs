//! Verifies a signed event-stream request (`STREAMING-AWS4-HMAC-SHA256-EVENTS`), frame by frame. Each outer frame
//! carries `:date` and `:chunk-signature`; its payload is the inner frame; signatures form a chain that begins with
//! the one of the Authorization header; the stream ends with a signed frame without payload. Rests on a stream captured
//! from the JS SDK 3.1164 (tests/fixtures/bidirectional.json), whose `:date` is not monotonic: order is not checked.

use bytes::BytesMut;
use sha2::{Digest, Sha256};

use crate::clock::format_amz_date;
use crate::eventstream::{self, Frame, Value};
use crate::sigv4::{Verified, hmac};
use crate::text::hex;

/// The literal that takes the place of the payload hash.
pub const STREAMING_PAYLOAD: &str = "STREAMING-AWS4-HMAC-SHA256-EVENTS";

/// The state of the chain.
pub struct ChunkVerifier {
    verified: Verified,
    previous: String,
    buffer: BytesMut,
    ended: bool,
}

impl ChunkVerifier {
    pub fn new(verified: Verified) -> Self {
        Self { previous: verified.signature.clone(), verified, buffer: BytesMut::new(), ended: false }
    }

    /// Whether the signed empty frame has been seen.
    pub fn ended(&self) -> bool {
        self.ended && self.buffer.is_empty()
    }

    /// Takes bytes of the body and gives the inner frames that are complete and authentic.
    ///
    /// # Errors
    /// What is wrong with framing or signature.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, String> {
        self.buffer.extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(outer) = eventstream::decode(&mut self.buffer)? {
            if self.ended {
                return Err("a frame follows the signed end of the stream".to_owned());
            }
            self.check(&outer)?;
            if outer.payload.is_empty() {
                self.ended = true;
                continue;
            }
            let mut inner = BytesMut::from(&outer.payload[..]);
            let frame = eventstream::decode(&mut inner)?.ok_or("the inner frame is incomplete")?;
            if !inner.is_empty() {
                return Err("bytes follow the inner frame".to_owned());
            }
            frames.push(frame);
        }
        Ok(frames)
    }

    fn check(&mut self, outer: &Frame) -> Result<(), String> {
        let [(date_name, Value::Timestamp(date_ms)), (signature_name, Value::Bytes(signature))] =
            outer.headers.as_slice()
        else {
            return Err(format!("a signed frame has exactly :date and :chunk-signature, not {:?}", outer.headers));
        };
        if date_name != ":date" || signature_name != ":chunk-signature" {
            return Err(format!("unexpected headers {date_name} and {signature_name}"));
        }
        let date_header = [b"\x05:date\x08".as_slice(), &date_ms.to_be_bytes()].concat();
        let string_to_sign = format!(
            "AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{}\n{}\n{}",
            format_amz_date(date_ms.div_euclid(1000)),
            self.verified.scope,
            self.previous,
            hex(&Sha256::digest(&date_header)),
            hex(&Sha256::digest(&outer.payload)),
        );
        let expected = hmac(&self.verified.key, string_to_sign.as_bytes());
        if expected.as_slice() != signature.as_slice() {
            return Err(format!("the chunk signature is not that of\n{string_to_sign}"));
        }
        self.previous = hex(signature);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sigv4::signing_key;
    use crate::text::from_hex;

    fn capture() -> (ChunkVerifier, Vec<Vec<u8>>) {
        let text = include_str!("../tests/fixtures/bidirectional.json");
        let capture: serde_json::Value = serde_json::from_str(text).unwrap();
        let scope = capture["scope"].as_str().unwrap().to_owned();
        let key = signing_key(capture["secret_access_key"].as_str().unwrap(), &scope);
        let signature = capture["initial_signature"].as_str().unwrap().to_owned();
        let frames = capture["frames"].as_array().unwrap().iter();
        let frames = frames.map(|frame| from_hex(frame["frame_hex"].as_str().unwrap()).unwrap()).collect();
        (ChunkVerifier::new(Verified { signature, scope, key }), frames)
    }

    #[test]
    fn a_stream_of_the_javascript_sdk_verifies_however_it_is_split() {
        let (mut verifier, frames) = capture();
        let whole = frames.concat();
        let mut inner = 0;
        for piece in whole.chunks(7) {
            inner += verifier.push(piece).unwrap().len();
        }
        assert_eq!(inner, 3);
        assert!(verifier.ended());
    }

    #[test]
    fn a_stream_without_its_signed_end_has_not_ended() {
        let (mut verifier, frames) = capture();
        verifier.push(&frames[..3].concat()).unwrap();
        assert!(!verifier.ended());
    }

    #[test]
    fn reordered_and_repeated_frames_are_refused() {
        let (mut verifier, frames) = capture();
        assert!(verifier.push(&frames[1]).is_err());
        let (mut verifier, _) = capture();
        verifier.push(&frames[0]).unwrap();
        assert!(verifier.push(&frames[0]).is_err());
    }
}
