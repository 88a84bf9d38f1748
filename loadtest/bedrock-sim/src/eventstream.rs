//! `application/vnd.amazon.eventstream` frames: a writer for answers and a strict reader for signed request streams.
//! Layout: total length, header length, CRC-32 of those eight bytes, headers, payload, CRC-32 of all before; big-endian.
//! Checked byte for byte against frames that botocore 1.44.5, the JS SDK and the Rust SDK decode.

use bytes::{Bytes, BytesMut};

const PRELUDE_LEN: usize = 12;
const CRC_LEN: usize = 4;
/// No AWS frame comes near this; a longer declared length is taken for damage.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A header value in one of the types that Bedrock uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Bytes(Vec<u8>),
    /// Milliseconds since 1970.
    Timestamp(i64),
    Other(u8),
}

/// A decoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub headers: Vec<(String, Value)>,
    pub payload: Bytes,
    /// The encoded headers, which request signatures cover in part.
    pub raw_len: usize,
}

impl Frame {
    pub fn header(&self, name: &str) -> Option<&Value> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }
}

/// An ordinary event with a JSON payload.
pub fn event(event_type: &str, json: &[u8]) -> Bytes {
    encode(&[(":event-type", event_type), (":content-type", "application/json"), (":message-type", "event")], json)
}

/// A modelled exception inside a stream, such as `throttlingException`.
pub fn exception(name: &str, message: &str) -> Bytes {
    let json = serde_json::json!({ "message": message }).to_string();
    encode(
        &[(":exception-type", name), (":content-type", "application/json"), (":message-type", "exception")],
        json.as_bytes(),
    )
}

/// An unmodelled error inside a stream: two headers and no payload.
pub fn error(code: &str, message: &str) -> Bytes {
    encode(&[(":error-code", code), (":error-message", message), (":message-type", "error")], b"")
}

/// One frame whose headers are all texts. A header longer than its length field allows is cut.
pub fn encode(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    let headers_len: usize = headers.iter().map(|(name, value)| 1 + name.len() + 3 + value.len()).sum();
    let mut frame = Vec::with_capacity(PRELUDE_LEN + headers_len + payload.len() + CRC_LEN);
    frame.extend_from_slice(&[0; PRELUDE_LEN]);
    for (name, value) in headers {
        let (name, value) = (cut(name, 255), cut(value, usize::from(u16::MAX)));
        frame.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        frame.extend_from_slice(name.as_bytes());
        frame.push(7);
        frame.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        frame.extend_from_slice(value.as_bytes());
    }
    finish(frame, payload)
}

/// Fills in lengths and checksums of a frame whose first twelve bytes are free and whose headers stand behind them.
pub(crate) fn finish(mut frame: Vec<u8>, payload: &[u8]) -> Bytes {
    let headers_len = u32::try_from(frame.len() - PRELUDE_LEN).unwrap_or(u32::MAX);
    let total_len = u32::try_from(frame.len() + payload.len() + CRC_LEN).unwrap_or(u32::MAX);
    let (total, headers) = (total_len.to_be_bytes(), headers_len.to_be_bytes());
    let prelude_crc = crc32fast::hash(&[total, headers].concat()).to_be_bytes();
    for (place, byte) in frame.iter_mut().zip(total.into_iter().chain(headers).chain(prelude_crc)) {
        *place = byte;
    }
    frame.extend_from_slice(payload);
    let crc = crc32fast::hash(&frame);
    frame.extend_from_slice(&crc.to_be_bytes());
    Bytes::from(frame)
}

fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

/// Takes one whole frame from the front of `buffer`, or `None` while it is incomplete.
///
/// # Errors
/// What is wrong with the frame; nothing behind it can be read any more.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, String> {
    let Some(total) = read_u32(buffer, 0) else { return Ok(None) };
    let (Some(headers_len), Some(prelude_crc)) = (read_u32(buffer, 4), read_u32(buffer, 8)) else { return Ok(None) };
    if buffer.get(..8).map(crc32fast::hash) != u32::try_from(prelude_crc).ok() {
        return Err("the prelude's checksum does not match".to_owned());
    }
    if !(PRELUDE_LEN + CRC_LEN..=FRAME_BYTES_MAX).contains(&total) || headers_len > total - PRELUDE_LEN - CRC_LEN {
        return Err(format!("impossible lengths: total {total}, headers {headers_len}"));
    }
    if buffer.len() < total {
        return Ok(None);
    }
    let frame = buffer.split_to(total).freeze();
    let crc = read_u32(&frame, total - CRC_LEN);
    let covered = frame.get(..total - CRC_LEN).map(crc32fast::hash);
    if covered.map(|hash| hash as usize) != crc {
        return Err("the message's checksum does not match".to_owned());
    }
    let headers_end = PRELUDE_LEN + headers_len;
    let raw = frame.get(PRELUDE_LEN..headers_end).unwrap_or_default();
    let headers = decode_headers(raw).ok_or("a header is damaged")?;
    Ok(Some(Frame { headers, payload: frame.slice(headers_end..total - CRC_LEN), raw_len: total }))
}

fn decode_headers(mut raw: &[u8]) -> Option<Vec<(String, Value)>> {
    let mut headers = Vec::new();
    while !raw.is_empty() {
        let name_len = usize::from(take(&mut raw, 1)?.first().copied()?);
        let name = String::from_utf8(take(&mut raw, name_len)?.to_vec()).ok()?;
        let kind = take(&mut raw, 1)?.first().copied()?;
        let value = match kind {
            6 | 7 => {
                let len = u16::from_be_bytes(take(&mut raw, 2)?.try_into().ok()?);
                let bytes = take(&mut raw, usize::from(len))?.to_vec();
                if kind == 7 { Value::Text(String::from_utf8(bytes).ok()?) } else { Value::Bytes(bytes) }
            }
            8 => Value::Timestamp(i64::from_be_bytes(take(&mut raw, 8)?.try_into().ok()?)),
            0 | 1 => Value::Other(kind),
            2 => take(&mut raw, 1).map(|_| Value::Other(kind))?,
            3 => take(&mut raw, 2).map(|_| Value::Other(kind))?,
            4 => take(&mut raw, 4).map(|_| Value::Other(kind))?,
            5 => take(&mut raw, 8).map(|_| Value::Other(kind))?,
            9 => take(&mut raw, 16).map(|_| Value::Other(kind))?,
            _ => return None,
        };
        headers.push((name, value));
    }
    Some(headers)
}

fn take<'a>(raw: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = raw.split_at_checked(count)?;
    *raw = tail;
    Some(head)
}

fn read_u32(bytes: &[u8], at: usize) -> Option<usize> {
    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(four)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::from_hex;

    /// Frames that the decoders of botocore 1.44.5, the JS SDK 3.1164 and the Rust SDK 1.153 accept.
    const FIXTURES: &str = include_str!("../tests/fixtures/eventstream.json");

    #[test]
    fn the_writer_gives_the_bytes_that_sdks_decode() {
        let fixtures: serde_json::Value = serde_json::from_str(FIXTURES).unwrap();
        let mut seen = 0;
        for hex in fixtures["frames"].as_object().unwrap().values().flat_map(|list| list.as_array().unwrap()) {
            let raw = from_hex(hex.as_str().unwrap()).unwrap();
            let frame = decode(&mut BytesMut::from(raw.as_slice())).unwrap().unwrap();
            let headers: Vec<(&str, &str)> = frame
                .headers
                .iter()
                .map(|(name, value)| match value {
                    Value::Text(text) => (name.as_str(), text.as_str()),
                    other => panic!("{name} is {other:?}"),
                })
                .collect();
            assert_eq!(encode(&headers, &frame.payload), raw);
            seen += 1;
        }
        assert!(seen >= 25, "{seen}");
    }

    #[test]
    fn the_named_writers_order_headers_as_aws_does() {
        let fixtures: serde_json::Value = serde_json::from_str(FIXTURES).unwrap();
        let hex = |name: &str| from_hex(fixtures["frames"][name][0].as_str().unwrap()).unwrap();
        let message = "Too many tokens, please wait before trying again.";
        assert_eq!(exception("throttlingException", message), hex("exception_throttling"));
        assert_eq!(error("InternalError", "boom"), hex("error_frame"));
        assert_eq!(event("analyzePromptEvent", br#"{"message":"m"}"#), hex("OptimizePrompt"));
    }

    #[test]
    fn damaged_frames_are_refused_and_incomplete_ones_awaited() {
        let whole = event("chunk", b"{}");
        for cut_at in 0..whole.len() {
            assert_eq!(decode(&mut BytesMut::from(&whole[..cut_at])), Ok(None), "{cut_at}");
        }
        for damaged_at in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[damaged_at] ^= 0x40;
            assert!(decode(&mut BytesMut::from(bytes.as_slice())).is_err(), "{damaged_at}");
        }
    }
}
