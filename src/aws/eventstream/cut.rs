//! Cuts a passing event stream behind whole frames, however the network has cut it: of a frame that has begun, nothing
//! goes on before its last byte is here. A client can do nothing with a part, and behind a part no exception could be
//! told: boto3 1.44.5 and anthropic 2.12.0 take a stream that ends inside a frame for complete (tried 2026-11-22).
//!
//! A frame whose checksum does not match is not handed on, nor what follows it: no client could read it, and behind it no
//! exception could be told either. What the frames say is the business of whoever reads them. What arrives as whole
//! frames passes without a copy. Part of a frame is copied, because a slice would keep all of the buffer it came in,
//! and many small slices would take far more room than their bytes.

use bytes::{Bytes, BytesMut};

use super::decode::{DecodeError, Limits, PRELUDE_BYTES, Prelude};

/// Holds back the frame that has begun.
#[derive(Debug)]
pub struct Cutter {
    limits: Limits,
    begun: BytesMut,
    /// It is no event stream, or one with frames beyond all bounds: everything passes as it comes.
    lost: bool,
    /// A whole frame was handed on.
    sound: bool,
    /// A frame is not what was sent: nothing passes any more.
    damaged: bool,
    /// All that came so far.
    seen_bytes: u64,
}

impl Cutter {
    /// At most `limits.frame_bytes_max` bytes are ever held back.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, begun: BytesMut::new(), lost: false, sound: false, damaged: false, seen_bytes: 0 }
    }

    /// Hands on, in order and unchanged, all bytes up to the end of the last frame that `bytes` completes. What does not
    /// begin with a prelude is no event stream and all of it is handed on; of one that is damaged later, nothing more.
    pub fn push(&mut self, mut bytes: Bytes, pass: &mut impl FnMut(Bytes)) {
        self.seen_bytes += bytes.len() as u64;
        if self.damaged {
            return;
        }
        if !self.lost && !self.begun.is_empty() {
            bytes = self.complete(bytes, pass);
        }
        let whole = if self.lost { bytes.len() } else { self.whole_frames(&bytes) };
        let part = bytes.split_off(whole);
        if !bytes.is_empty() {
            pass(bytes);
        }
        if !self.damaged {
            self.begun.extend_from_slice(&part);
        }
    }

    /// Whether all of the `next` bytes may be handed on unseen, given that somebody has checked the first `whole_bytes` of the
    /// stream and found whole frames in them. Takes them for handed on if so.
    #[must_use]
    pub fn skip(&mut self, next: u64, whole_bytes: u64) -> bool {
        let whole = self.begun.is_empty() && !self.lost && !self.damaged && self.seen_bytes + next == whole_bytes;
        if whole && next > 0 {
            self.seen_bytes = whole_bytes;
            self.sound = true;
        }
        whole
    }

    /// Whether a frame was not what was sent, and is held back with everything behind it.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Whether all that was handed on ends with a whole frame, so that another may follow.
    #[must_use]
    pub fn may_add(&self) -> bool {
        !self.lost
    }

    /// Bytes of the frame that has begun.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.begun.len()
    }

    /// Fills up the frame that has begun, and returns what follows it.
    fn complete(&mut self, mut bytes: Bytes, pass: &mut impl FnMut(Bytes)) -> Bytes {
        self.fill_to(PRELUDE_BYTES, &mut bytes);
        match Prelude::read(&self.begun, self.limits) {
            Ok(None) => return bytes,
            Ok(Some(prelude)) => {
                self.fill_to(prelude.frame_bytes(), &mut bytes);
                if self.begun.len() < prelude.frame_bytes() {
                    return bytes;
                }
                if !prelude.is_intact(&self.begun) {
                    return self.damage();
                }
                self.sound = true;
            }
            Err(DecodeError::PreludeChecksum) if self.sound => return self.damage(),
            Err(_) => self.lost = true,
        }
        pass(std::mem::take(&mut self.begun).freeze());
        bytes
    }

    /// Gives up what has begun. Returns what is left to hand on: nothing.
    fn damage(&mut self) -> Bytes {
        self.damaged = true;
        self.begun.clear();
        Bytes::new()
    }

    /// Moves bytes to the frame that has begun until it has `wanted` of them.
    fn fill_to(&mut self, wanted: usize, bytes: &mut Bytes) {
        let missing = wanted.saturating_sub(self.begun.len()).min(bytes.len());
        self.begun.extend_from_slice(&bytes.split_to(missing));
    }

    /// How many of `bytes`, which begin with a frame, belong to whole frames.
    fn whole_frames(&mut self, bytes: &[u8]) -> usize {
        let mut whole = 0;
        while let Some(rest) = bytes.get(whole..) {
            match Prelude::read(rest, self.limits) {
                Ok(Some(prelude)) if prelude.frame_bytes() <= rest.len() => {
                    if !rest.get(..prelude.frame_bytes()).is_some_and(|frame| prelude.is_intact(frame)) {
                        self.damaged = true;
                        break;
                    }
                    self.sound = true;
                    whole += prelude.frame_bytes();
                }
                Ok(_) => break,
                Err(DecodeError::PreludeChecksum) if self.sound => {
                    self.damaged = true;
                    break;
                }
                Err(_) => {
                    self.lost = true;
                    return bytes.len();
                }
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::aws::eventstream::encode::{HeaderValue, frame};

    /// What each push handed on, joined.
    fn cut<'p>(limits: Limits, pieces: impl IntoIterator<Item = &'p [u8]>) -> (Vec<Vec<u8>>, Cutter) {
        let mut cutter = Cutter::new(limits);
        let mut passed = Vec::new();
        for piece in pieces {
            let mut now = Vec::new();
            cutter.push(Bytes::copy_from_slice(piece), &mut |bytes| {
                assert!(!bytes.is_empty(), "an empty piece could end an HTTP message");
                now.extend_from_slice(&bytes);
            });
            passed.push(now);
        }
        (passed, cutter)
    }

    fn text_frame(payload: &[u8]) -> Vec<u8> {
        frame(&[(":event-type", HeaderValue::String("chunk"))], payload)
    }

    #[test]
    fn nothing_from_a_damaged_frame_on_is_handed_on() {
        let good = text_frame(b"good");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let stream = [good.as_slice(), &bad, &good].concat();
            for pieces in [vec![stream.as_slice()], stream.chunks(1).collect(), stream.chunks(7).collect()] {
                let (passed, cutter) = cut(Limits::default(), pieces);
                assert_eq!(passed.concat(), good, "damaged at {at}");
                assert!(cutter.is_damaged() && cutter.may_add() && cutter.held_bytes() == 0, "damaged at {at}");
            }
        }
    }

    #[test]
    fn whole_frames_pass_without_a_copy() {
        let stream = Bytes::from([text_frame(b"one"), text_frame(b"two")].concat());
        let mut passed = Vec::new();
        Cutter::new(Limits::default()).push(stream.clone(), &mut |bytes| passed.push(bytes));
        assert_eq!(passed.len(), 1);
        assert_eq!((passed[0].as_ptr(), passed[0].len()), (stream.as_ptr(), stream.len()));
    }

    #[test]
    fn only_what_ends_where_whole_frames_are_known_to_end_passes_unseen() {
        let (one, two) = (text_frame(b"one"), text_frame(b"the second"));
        let (first, both) = (one.len() as u64, (one.len() + two.len()) as u64);
        let mut cutter = Cutter::new(Limits::default());
        assert!(!cutter.skip(first, 0) && !cutter.skip(first, both) && !cutter.skip(first - 1, first));
        assert!(cutter.skip(first, first));
        assert!(!cutter.skip(first, first), "it is behind them");
        let mut passed = Vec::new();
        cutter.push(Bytes::copy_from_slice(&two[..5]), &mut |bytes| passed.push(bytes));
        assert!(!cutter.skip(both - first - 5, both), "a part of the frame is held back");
        cutter.push(Bytes::copy_from_slice(&two[5..]), &mut |bytes| passed.push(bytes));
        assert_eq!(passed.concat(), two);
        assert!(cutter.skip(first, both + first));
        let mut bad = two;
        *bad.last_mut().unwrap() ^= 1;
        let seen = both + first + bad.len() as u64;
        cutter.push(Bytes::from(bad), &mut |bytes| passed.push(bytes));
        assert!(cutter.is_damaged() && !cutter.skip(first, seen + first));
    }

    #[test]
    fn a_frame_leaves_with_its_last_byte_and_not_before() {
        let (one, two) = (text_frame(b"one"), text_frame(b"two"));
        for at in 1..two.len() {
            let first = [&one, &two[..at]].concat();
            let (passed, cutter) = cut(Limits::default(), [&first, &two[at..two.len() - 1]]);
            assert_eq!((&passed[0], passed[1].len()), (&one, 0), "cut at {at}");
            assert_eq!((cutter.held_bytes(), cutter.may_add()), (two.len() - 1, true));
            let (passed, cutter) = cut(Limits::default(), [&first, &two[at..]]);
            assert_eq!((&passed[1], cutter.held_bytes()), (&two, 0), "cut at {at}");
        }
    }

    #[test]
    fn a_stream_that_is_none_passes_as_it_comes() {
        let limits = Limits { frame_bytes_max: 1_000, headers_bytes_max: 100 };
        let mut bad_prelude = text_frame(b"damaged");
        bad_prelude[9] ^= 1;
        let too_long = text_frame(&[0; 1_000]);
        let good = text_frame(b"good");
        for (good, nonsense, first) in [
            (&[][..], b"{\"message\":\"this is no event stream at all\"}".to_vec(), 5),
            (&[], bad_prelude, 11),
            (&[], too_long.clone(), 3),
            (&good, too_long, 3),
        ] {
            let stream = [good, &nonsense, b"rest"].concat();
            let (passed, cutter) = cut(limits, stream.chunks(7));
            assert_eq!((passed.concat(), cutter.held_bytes(), cutter.may_add()), (stream.clone(), 0, false));
            // Whether the prelude came in one piece or in two.
            let pieces = [[good, &nonsense[..first]].concat(), nonsense[first..].to_vec(), b"rest".to_vec()];
            let (passed, cutter) = cut(limits, pieces.iter().map(Vec::as_slice));
            assert_eq!((passed.concat(), cutter.may_add()), (stream, false));
            assert_eq!(passed[2], b"rest", "nothing is held back any more");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_bytes_in_pieces_that_end_with_a_frame(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..12),
            sizes in proptest::collection::vec(1_usize..400, 1..40),
            tail in 0_usize..40,
        ) {
            let frames: Vec<_> = payloads.iter().map(|payload| text_frame(payload)).collect();
            let ends: Vec<_> = frames.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) }).collect();
            let whole = frames.concat();
            let begun = text_frame(b"a frame whose end never comes");
            let stream = [whole.as_slice(), &begun[..tail.min(begun.len() - 1)]].concat();
            let mut pieces = Vec::new();
            let mut rest = stream.as_slice();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            let (passed, cutter) = cut(Limits::default(), pieces.iter().copied());
            let (mut arrived, mut left) = (0, 0);
            for (piece, now) in pieces.iter().zip(&passed) {
                arrived += piece.len();
                left += now.len();
                let complete = ends.iter().copied().filter(|end| *end <= arrived).max().unwrap_or(0);
                prop_assert_eq!(left, complete, "all that is whole has left, and nothing else");
            }
            prop_assert_eq!(passed.concat(), whole);
            prop_assert_eq!(cutter.held_bytes(), stream.len() - left);
            prop_assert!(cutter.may_add());
        }
    }
}
