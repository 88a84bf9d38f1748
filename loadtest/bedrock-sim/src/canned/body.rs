//! Finds the end of a request body without keeping it, however its bytes are cut.

/// How a body is delimited, and how far it has been passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// So many bytes are to come.
    Length(u64),
    Chunked(Chunk),
}

/// A place inside a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// In the line of a chunk's size, or in an extension behind it.
    Size {
        so_far: u64,
        extension: bool,
    },
    Data(u64),
    /// In the line end behind a chunk's data.
    DataEnd,
    /// In a line of the trailer section that has so many bytes.
    Trailer(u32),
    End,
}

/// A chunk size that is no hexadecimal number, or a chunk that is longer than it said.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

impl Body {
    pub const EMPTY: Self = Self::Length(0);
    pub const CHUNKED: Self = Self::Chunked(Chunk::Size { so_far: 0, extension: false });

    pub fn is_over(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::End))
    }

    /// Passes over what of `input` belongs to the body, gives its length, and adds content to `kept`.
    ///
    /// # Errors
    /// When it is no chunked body.
    pub fn pass(&mut self, input: &[u8], mut kept: Option<&mut Vec<u8>>) -> Result<usize, Malformed> {
        let mut passed = 0;
        while !self.is_over()
            && let Some(&next) = input.get(passed)
        {
            let (Self::Length(left) | Self::Chunked(Chunk::Data(left))) = self else {
                if let Self::Chunked(chunk) = self {
                    *chunk = chunk.after(next)?;
                }
                passed += 1;
                continue;
            };
            let rest = input.get(passed..).unwrap_or_default();
            let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
            if let Some(kept) = kept.as_deref_mut() {
                kept.extend(rest.get(..count).unwrap_or_default());
            }
            *left -= u64::try_from(count).unwrap_or(*left);
            passed += count;
            if *self == Self::Chunked(Chunk::Data(0)) {
                *self = Self::Chunked(Chunk::DataEnd);
            }
        }
        Ok(passed)
    }
}

impl Chunk {
    /// The place behind `byte`, which is no data.
    fn after(self, byte: u8) -> Result<Self, Malformed> {
        match (self, byte) {
            (Self::Size { so_far: 0, .. }, b'\n') => Ok(Self::Trailer(0)),
            (Self::Size { so_far, .. }, b'\n') => Ok(Self::Data(so_far)),
            (Self::Size { so_far, .. }, b'\r' | b';' | b' ') => Ok(Self::Size { so_far, extension: true }),
            (Self::Size { extension: true, .. }, _) | (Self::DataEnd | Self::Trailer(_), b'\r') => Ok(self),
            (Self::Size { so_far, extension: false }, digit) => {
                let digit = char::from(digit).to_digit(16).ok_or(Malformed)?;
                let so_far = so_far.checked_mul(16).ok_or(Malformed)? + u64::from(digit);
                Ok(Self::Size { so_far, extension: false })
            }
            (Self::DataEnd, b'\n') => Ok(Self::Size { so_far: 0, extension: false }),
            (Self::DataEnd | Self::Data(_), _) => Err(Malformed),
            (Self::Trailer(0), b'\n') | (Self::End, _) => Ok(Self::End),
            (Self::Trailer(_), b'\n') => Ok(Self::Trailer(0)),
            (Self::Trailer(count), _) => Ok(Self::Trailer(count.saturating_add(1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes over `input` cut at `at`; gives how much of it was body, and the content.
    fn pass(mut body: Body, input: &[u8], at: usize) -> Result<(usize, Vec<u8>), Malformed> {
        let (head, tail) = input.split_at(at);
        let mut kept = Vec::new();
        let first = body.pass(head, Some(&mut kept))?;
        let second = if first == head.len() { body.pass(tail, Some(&mut kept))? } else { 0 };
        assert!(body.is_over());
        Ok((first + second, kept))
    }

    #[test]
    fn a_chunked_body_ends_where_it_says_however_it_is_cut() {
        let input = b"4;a=b\r\nwiki\r\nA\r\n0123456789\r\n0\r\nx-t: v\r\n\r\nGET /";
        for at in 0..input.len() {
            let (passed, kept) = pass(Body::CHUNKED, input, at).unwrap();
            assert_eq!((&input[passed..], kept.as_slice()), (&b"GET /"[..], &b"wiki0123456789"[..]), "{at}");
        }
    }

    #[test]
    fn a_counted_body_ends_where_it_says_however_it_is_cut() {
        for at in 0..7 {
            assert_eq!(pass(Body::Length(4), b"wikiGET", at), Ok((4, b"wiki".to_vec())), "{at}");
        }
        assert!(Body::EMPTY.is_over());
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for input in [&b"x\r\n"[..], b"1\r\nab\r\n", b"11111111111111111\r\n"] {
            let mut body = Body::CHUNKED;
            assert_eq!(body.pass(input, None), Err(Malformed), "{input:?}");
        }
    }
}
