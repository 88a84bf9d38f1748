//! The pure modules of the proxy, compiled in by path, and what the fuzz targets share.
//!
//! Layer 1 has no IO and few dependencies; building it alone keeps a fuzzing round fast.

#[path = "../../../src/types"]
pub mod types {
    pub mod ids;
    pub mod money;
    pub mod secret;
    pub mod tokens;
    pub mod usage;
}

#[path = "../../../src/aws"]
pub mod aws {
    pub mod eventstream;
    pub mod operation;
}

#[path = "../../../src/json.rs"]
pub mod json;

#[path = "../../../src/usage/mod.rs"]
pub mod usage;

/// Cuts `bytes` into pieces whose lengths `seed` decides, from one byte to a few hundred.
pub fn pieces(bytes: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut state = seed | 1;
    let mut rest = bytes;
    let mut found = Vec::new();
    while !rest.is_empty() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let longest = if state & 0x300 == 0 { 300 } else { 7 };
        let length = usize::try_from(state % longest).unwrap_or(0) + 1;
        let (piece, after) = rest.split_at(length.min(rest.len()));
        found.push(piece);
        rest = after;
    }
    found
}

/// A frame with right checksums around arbitrary headers and payload, so that fuzzing gets past them.
pub fn sealed(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let total = u32::try_from(headers.len() + payload.len() + 16).unwrap_or(u32::MAX);
    let mut frame = total.to_be_bytes().to_vec();
    frame.extend_from_slice(&u32::try_from(headers.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.extend_from_slice(headers);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame
}

/// The headers of an event, as AWS writes them.
pub fn event_headers(kind: &str, name: &str) -> Vec<u8> {
    let of = if kind == "event" { ":event-type" } else { ":exception-type" };
    let mut headers = Vec::new();
    for (header, value) in [(of, name), (":content-type", "application/json"), (":message-type", kind)] {
        headers.push(u8::try_from(header.len()).unwrap_or(0));
        headers.extend_from_slice(header.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    headers
}
