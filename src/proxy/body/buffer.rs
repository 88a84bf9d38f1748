//! A body as it arrives: what comes in one piece stays that piece, everything else is copied into one buffer from the
//! second piece on.
//!
//! So there is never a second copy of all of it. A buffer has the announced size from the start; where nothing is
//! announced it doubles while it is small and then gets the size of the largest body. Pages of it that were not written
//! to are not in memory, so what a client announces or could send takes none before it is here.

use std::collections::TryReserveError;

use bytes::Bytes;

/// Up to here a buffer doubles: it is copied for that, so its bytes are there twice for a moment.
const DOUBLED_BYTES_MAX: usize = 1024 * 1024;
/// The first buffer of a body without a length.
const FIRST_BYTES: usize = 64 * 1024;

/// The bytes of one body.
#[derive(Debug)]
pub(super) struct Buffer {
    announced: Option<usize>,
    /// Of the largest body that is let in.
    bytes_max: usize,
    /// All there is while there is one piece.
    only: Bytes,
    joined: Vec<u8>,
}

impl Buffer {
    pub(super) fn new(announced: Option<usize>, bytes_max: usize) -> Self {
        Self { announced, bytes_max, only: Bytes::new(), joined: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.only.len() + self.joined.len()
    }

    /// Appends a piece.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(super) fn push(&mut self, piece: Bytes) -> Result<(), TryReserveError> {
        if self.len() == 0 {
            self.only = piece;
            return Ok(());
        }
        let length = self.len().saturating_add(piece.len());
        if length > self.joined.capacity() {
            let more = self.capacity_for(length).saturating_sub(self.joined.len());
            self.joined.try_reserve_exact(more)?;
        }
        self.joined.extend_from_slice(&std::mem::take(&mut self.only));
        self.joined.extend_from_slice(&piece);
        Ok(())
    }

    fn capacity_for(&self, length: usize) -> usize {
        let wanted = match self.announced {
            Some(announced) => announced,
            None if length > DOUBLED_BYTES_MAX => self.bytes_max,
            None => length.saturating_mul(2).clamp(FIRST_BYTES, DOUBLED_BYTES_MAX),
        };
        wanted.max(length)
    }

    pub(super) fn finish(self) -> Bytes {
        if self.joined.is_empty() { self.only } else { Bytes::from(self.joined) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 25 * 1024 * 1024;

    fn gathered(announced: Option<usize>, sizes: &[usize]) -> (Buffer, Vec<u8>, usize) {
        let (mut buffer, mut sent, mut moved) = (Buffer::new(announced, MAX), Vec::new(), 0);
        for (at, size) in sizes.iter().enumerate() {
            let piece = vec![at.to_le_bytes()[0]; *size];
            sent.extend_from_slice(&piece);
            let before = buffer.joined.capacity();
            buffer.push(piece.into()).unwrap();
            moved += usize::from(before > 0 && buffer.joined.capacity() > before);
        }
        (buffer, sent, moved)
    }

    #[test]
    fn a_body_is_the_same_in_one_piece() {
        let many = vec![1; 200_000];
        for sizes in [&many[..], &[4096; 3], &[1, 4096, 2, 70_000, 3], &[300_000; 9], &[7], &[]] {
            let length = sizes.iter().sum();
            // A length that is wrong is found out by whoever reads; here it must only do no harm.
            for announced in [None, Some(length), Some(length / 2), Some(length + 1)] {
                let (buffer, sent, _) = gathered(announced, sizes);
                assert_eq!(buffer.len(), length);
                assert_eq!(buffer.finish(), sent, "{announced:?}");
            }
        }
    }

    #[test]
    fn what_comes_in_one_piece_is_not_copied() {
        let piece = Bytes::from(vec![1; 100]);
        let mut buffer = Buffer::new(Some(100), MAX);
        buffer.push(piece.clone()).unwrap();
        assert_eq!(buffer.finish().as_ptr(), piece.as_ptr());
    }

    #[test]
    fn what_was_announced_is_gathered_in_a_buffer_of_just_that_size() {
        let (buffer, sent, moved) = gathered(Some(20_000_000), &[62_500; 320]);
        assert_eq!((buffer.joined.capacity(), moved), (20_000_000, 0));
        let address = buffer.joined.as_ptr();
        let whole = buffer.finish();
        assert_eq!((whole.as_ptr(), whole.len()), (address, sent.len()));
    }

    #[test]
    fn a_large_body_without_a_length_is_moved_only_while_it_is_small() {
        let (mut buffer, mut twice) = (Buffer::new(None, MAX), 0);
        for _ in 0..1_600 {
            let (length, capacity) = (buffer.joined.len(), buffer.joined.capacity());
            buffer.push(vec![1; 16 * 1024].into()).unwrap();
            if buffer.joined.capacity() != capacity {
                twice = twice.max(length);
            }
        }
        assert_eq!(buffer.len(), MAX);
        assert_eq!(buffer.joined.capacity(), MAX);
        assert!(twice <= DOUBLED_BYTES_MAX, "{twice} bytes were there twice");
    }
}
