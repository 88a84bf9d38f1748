//! AWS event streams (`application/vnd.amazon.eventstream`): frames in, frames out.
//!
//! A frame is `total u32 | headers u32 | crc32 of those 8 bytes | headers | payload | crc32 of all before`, big-endian,
//! with the plain CRC-32 of zlib. Source: AWS's event-stream specification; checked against the frames that botocore
//! 1.44.5, the JS and the Rust SDK read and write. What an event means is not known here.

pub mod cut;
pub mod decode;
pub mod encode;

/// Whether a `content-type` announces an event stream.
#[must_use]
pub fn is_announced_by(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/vnd.amazon.eventstream")
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_event_stream_is_known_by_its_media_type() {
        for (content_type, announced) in [
            ("application/vnd.amazon.eventstream", true),
            ("Application/VND.amazon.EventStream ; charset=utf-8", true),
            ("application/vnd.amazon.eventstreams", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(super::is_announced_by(content_type), announced, "{content_type}");
        }
    }
}
