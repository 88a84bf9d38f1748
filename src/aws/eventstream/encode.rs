//! Writes one message of `application/vnd.amazon.eventstream`: prelude, prelude CRC, headers, payload, message CRC.
//!
//! It knows only the three header types that this program ever sends (string, byte buffer, timestamp) and decides
//! nothing about what a message means. Reading is the decoder's business.
//! Rests on AWS's "Event stream encoding" (Amazon Transcribe and Smithy specifications) and on frames captured from
//! the AWS SDK for JavaScript 3.1164.

/// Two lengths of four bytes each; what the prelude CRC covers.
const PRELUDE_BYTES: usize = 8;
const CRC_BYTES: usize = 4;

/// The longest header value the two length bytes can state.
const HEADER_VALUE_BYTES_MAX: usize = u16::MAX as usize;

/// A header value, with the type byte it has on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderValue<'a> {
    /// Type 7. A text over 65,535 bytes is cut before the character that does not fit.
    String(&'a str),
    /// Type 6. Cut at 65,535 bytes.
    ByteBuf(&'a [u8]),
    /// Type 8: milliseconds since 1970, negative before it.
    TimestampMs(i64),
}

impl HeaderValue<'_> {
    fn append_to(self, out: &mut Vec<u8>) {
        match self {
            Self::ByteBuf(bytes) => append_sized(out, 6, bytes.get(..HEADER_VALUE_BYTES_MAX).unwrap_or(bytes)),
            Self::String(text) => {
                append_sized(out, 7, &text.as_bytes()[..text.floor_char_boundary(HEADER_VALUE_BYTES_MAX)]);
            }
            Self::TimestampMs(milliseconds) => {
                out.push(8);
                out.extend_from_slice(&milliseconds.to_be_bytes());
            }
        }
    }
}

/// Encodes one message. Header order is kept.
///
/// A header whose name is empty or over 255 bytes cannot be written and is left out. The format ends at 4 GiB (AWS at
/// 24 MiB of payload); a larger payload gives a message that every reader refuses by its length and checksum.
#[must_use]
pub fn frame(headers: &[(&str, HeaderValue<'_>)], payload: &[u8]) -> Vec<u8> {
    let headers_estimate: usize = headers.iter().map(|(name, _)| name.len() + 64).sum();
    let mut out = Vec::with_capacity(PRELUDE_BYTES + 2 * CRC_BYTES + headers_estimate + payload.len());
    out.resize(PRELUDE_BYTES + CRC_BYTES, 0);
    append_headers(headers, &mut out);
    let headers_bytes = out.len() - PRELUDE_BYTES - CRC_BYTES;
    let total_bytes = out.len() + payload.len() + CRC_BYTES;

    let mut prelude = [0; PRELUDE_BYTES];
    prelude[..4].copy_from_slice(&length(total_bytes));
    prelude[4..].copy_from_slice(&length(headers_bytes));
    out[..PRELUDE_BYTES].copy_from_slice(&prelude);
    out[PRELUDE_BYTES..PRELUDE_BYTES + CRC_BYTES].copy_from_slice(&crc32fast::hash(&prelude).to_be_bytes());

    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

/// Appends headers as they stand inside a message, without lengths or checksums: what a chunk signature hashes.
pub fn append_headers(headers: &[(&str, HeaderValue<'_>)], out: &mut Vec<u8>) {
    for (name, value) in headers {
        let Some(name_bytes) = u8::try_from(name.len()).ok().filter(|bytes| *bytes > 0) else { continue };
        out.push(name_bytes);
        out.extend_from_slice(name.as_bytes());
        value.append_to(out);
    }
}

fn append_sized(out: &mut Vec<u8>, type_byte: u8, bytes: &[u8]) {
    out.push(type_byte);
    // Callers cut at `HEADER_VALUE_BYTES_MAX`.
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::{HeaderValue, append_headers, frame};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    }

    #[test]
    fn an_inner_frame_is_written_as_the_javascript_sdk_writes_it() {
        let payload = br#"{"bytes":"eyJldmVudCI6eyJzZXNzaW9uU3RhcnQiOnsiaSI6MH19fQ=="}"#;
        let headers = [
            (":event-type", HeaderValue::String("chunk")),
            (":message-type", HeaderValue::String("event")),
            (":content-type", HeaderValue::String("application/json")),
        ];
        // Captured from @aws-sdk/client-bedrock-runtime 3.1164 on 2026-11-22.
        assert_eq!(
            hex(&frame(&headers, payload)),
            "000000970000004be70abc710b3a6576656e742d747970650700056368756e6b0d3a6d6573736167652d7479706507000565\
             76656e740d3a636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e7b226279746573223a2265794a\
             6c646d56756443493665794a7a5a584e7a6157397555335268636e51694f6e7369615349364d48313966513d3d227d293577\
             24"
        );
    }

    #[test]
    fn a_message_without_headers_and_payload_is_sixteen_bytes() {
        assert_eq!(hex(&frame(&[], &[])), "000000100000000005c248eb7d98c8ff");
    }

    #[test]
    fn a_timestamp_is_eight_big_endian_bytes() {
        let mut out = Vec::new();
        append_headers(&[(":date", HeaderValue::TimestampMs(0x01a2_04b0_a208))], &mut out);
        assert_eq!(hex(&out), "053a6461746508000001a204b0a208");
    }

    #[test]
    fn what_the_format_cannot_hold_is_cut_or_left_out() {
        let long = "é".repeat(40_000);
        let mut out = Vec::new();
        append_headers(&[("a", HeaderValue::String(&long)), ("", HeaderValue::String("x"))], &mut out);
        assert_eq!(&out[..5], &[1, b'a', 7, 0xff, 0xfe]);
        assert_eq!(out.len(), 5 + 65_534);
        append_headers(&[(&"n".repeat(256), HeaderValue::ByteBuf(b"x"))], &mut out);
        assert_eq!(out.len(), 5 + 65_534);
        out.clear();
        append_headers(&[("b", HeaderValue::ByteBuf(&vec![7; 70_000]))], &mut out);
        assert_eq!(out.len(), 5 + 65_535);
    }
}
