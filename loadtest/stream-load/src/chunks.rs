//! Takes the content out of a chunked body, however its bytes are cut.

use crate::fault::Fault;

/// A place inside a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunks {
    Size(u64),
    /// Behind the digits of a size, with an extension or without.
    SizeEnd(u64),
    Data(u64),
    DataEnd,
    /// In a line of the trailer section; whether it is empty so far.
    Trailer(bool),
    End,
}

impl Chunks {
    pub const BEGIN: Self = Self::Size(0);

    pub fn is_over(self) -> bool {
        self == Self::End
    }

    /// The next piece of content in `input`, which it is taken off; `None` when there is none before its end or the
    /// body's.
    ///
    /// # Errors
    /// When this is no chunked body.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
        while !self.is_over() {
            if let Self::Data(left) = *self {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let (content, rest) = input.split_at(count);
                *input = rest;
                let left = left - u64::try_from(count).unwrap_or(left);
                *self = if left == 0 { Self::DataEnd } else { Self::Data(left) };
                return Ok(Some(content).filter(|content| !content.is_empty()));
            }
            let Some((byte, rest)) = input.split_first() else { return Ok(None) };
            *input = rest;
            *self = self.after(*byte)?;
        }
        Ok(None)
    }

    fn after(self, byte: u8) -> Result<Self, Fault> {
        match (self, byte) {
            (Self::Size(0) | Self::SizeEnd(0), b'\n') => Ok(Self::Trailer(true)),
            (Self::Size(size) | Self::SizeEnd(size), b'\n') => Ok(Self::Data(size)),
            (Self::Size(size), b'\r' | b';' | b' ') | (Self::SizeEnd(size), _) => Ok(Self::SizeEnd(size)),
            (Self::Size(size), digit) => {
                let digit = char::from(digit).to_digit(16).ok_or(Fault::Http("a chunk has no size"))?;
                let size = size.checked_mul(16).ok_or(Fault::Http("a chunk is too long"))?;
                Ok(Self::Size(size + u64::from(digit)))
            }
            (Self::DataEnd, b'\n') => Ok(Self::BEGIN),
            (Self::DataEnd | Self::Trailer(_), b'\r') => Ok(self),
            (Self::DataEnd | Self::Data(_), _) => Err(Fault::Http("a chunk is longer than it said")),
            (Self::Trailer(true), b'\n') | (Self::End, _) => Ok(Self::End),
            (Self::Trailer(_), byte) => Ok(Self::Trailer(byte == b'\n')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(chunks: &mut Chunks, mut input: &[u8]) -> (Vec<u8>, usize) {
        let mut content = Vec::new();
        while let Some(piece) = chunks.next(&mut input).unwrap() {
            content.extend_from_slice(piece);
        }
        (content, input.len())
    }

    #[test]
    fn content_is_the_same_however_the_bytes_are_cut() {
        let whole = b"4;a=b\r\nwiki\r\nA\r\n0123456789\r\n0\r\nx-t: v\r\n\r\nHTTP";
        let body = whole.len() - 4;
        for at in 0..=body {
            let mut chunks = Chunks::BEGIN;
            let (mut read, left) = content(&mut chunks, &whole[..at]);
            assert_eq!(left, 0);
            let (more, left) = content(&mut chunks, &whole[at..]);
            read.extend(more);
            assert_eq!((read.as_slice(), left, chunks), (&b"wiki0123456789"[..], 4, Chunks::End), "{at}");
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for mut input in [&b"x\r\n"[..], b"11111111111111111\r\n"] {
            let mut chunks = Chunks::BEGIN;
            assert!(chunks.next(&mut input).is_err());
        }
        let (mut chunks, mut input) = (Chunks::BEGIN, &b"1\r\nab"[..]);
        assert_eq!(chunks.next(&mut input), Ok(Some(&b"a"[..])));
        assert!(chunks.next(&mut input).is_err());
    }
}
