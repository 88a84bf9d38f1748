//! AWS event streams (`application/vnd.amazon.eventstream`): frames in, frames out.
//!
//! A frame is `total u32 | headers u32 | crc32 of those 8 bytes | headers | payload | crc32 of all before`, big-endian,
//! with the plain CRC-32 of zlib. Source: AWS's event-stream specification; checked against the frames that botocore
//! 1.44.5, the JS and the Rust SDK read and write. What an event means is not known here.

pub mod decode;
pub mod encode;
