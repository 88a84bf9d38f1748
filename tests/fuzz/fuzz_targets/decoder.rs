//! The event-stream decoder: never panics, finds the same frames however the bytes are cut, fails for good.
#![no_main]

use dheera_ai_fuzz::aws::eventstream::decode::{DecodeError, Decoder, Limits};
use dheera_ai_fuzz::{pieces, sealed};
use libfuzzer_sys::fuzz_target;

type Frames = Vec<(Vec<String>, Vec<u8>)>;

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Frames, Result<(), DecodeError>, bool) {
    let mut decoder = Decoder::new(Limits { frame_bytes_max: 64 * 1024, headers_bytes_max: 4096 });
    let mut frames = Vec::new();
    let mut result = Ok(());
    for piece in pieces {
        let pushed = decoder.push(piece, &mut |frame| {
            let headers = frame.headers().map(|header| format!("{header:?}")).collect();
            let _ = (frame.message_type(), frame.event_type(), frame.exception_type(), frame.error_code());
            let _ = (frame.content_type(), frame.header(":date"));
            frames.push((headers, frame.payload.to_vec()));
        });
        if let Err(error) = pushed {
            assert!(result.is_ok() || result == Err(error), "the error may not change");
            result = Err(error);
        }
    }
    (frames, result, decoder.at_boundary())
}

fuzz_target!(|input: &[u8]| {
    let Some((seed, input)) = input.split_first_chunk::<8>() else { return };
    let seed = u64::from_le_bytes(*seed);
    // Half of the runs are raw bytes, half are frames whose checksums are right, with something broken behind.
    let stream = if seed & 1 == 0 {
        input.to_vec()
    } else {
        let middle = usize::try_from(seed >> 32).unwrap_or(0) % (input.len() + 1);
        let (headers, payload) = input.split_at(middle);
        let mut stream = sealed(headers, payload);
        stream.extend_from_slice(&sealed(payload, headers));
        stream.extend_from_slice(input);
        stream
    };
    let whole = decode([stream.as_slice()].into_iter());
    let cut = decode(pieces(&stream, seed).into_iter());
    assert_eq!(whole, cut);
});
