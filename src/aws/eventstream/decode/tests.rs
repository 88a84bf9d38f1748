use super::*;
use aws_smithy_eventstream::frame::{read_message_from, write_message_to};
use aws_smithy_types::event_stream::{Header, HeaderValue as Theirs, Message};
use proptest::prelude::*;

const FIXTURES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/event_streams.txt"));

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn fixture_frames() -> Vec<Vec<u8>> {
    FIXTURES.lines().filter(|line| !line.starts_with('#')).map(|line| unhex(line.split_once(' ').unwrap().1)).collect()
}

/// Headers as text, and the payload.
type Seen = Vec<(Vec<(String, String)>, Vec<u8>)>;

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Seen, Result<(), DecodeError>, bool) {
    let mut decoder = Decoder::new(Limits::default());
    let mut seen = Vec::new();
    let mut result = Ok(());
    for piece in pieces {
        let pushed = decoder.push(piece, &mut |frame| {
            let headers = frame
                .headers()
                .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), format!("{value:?}")))
                .collect();
            seen.push((headers, frame.payload.to_vec()));
        });
        result = result.and(pushed);
    }
    (seen, result, decoder.at_boundary())
}

fn ours(value: &Theirs) -> String {
    match value {
        Theirs::Bool(value) => format!("{:?}", HeaderValue::Bool(*value)),
        Theirs::Byte(value) => format!("{:?}", HeaderValue::Byte(*value)),
        Theirs::Int16(value) => format!("{:?}", HeaderValue::Int16(*value)),
        Theirs::Int32(value) => format!("{:?}", HeaderValue::Int32(*value)),
        Theirs::Int64(value) => format!("{:?}", HeaderValue::Int64(*value)),
        Theirs::ByteArray(value) => format!("{:?}", HeaderValue::Bytes(value)),
        Theirs::String(value) => format!("{:?}", HeaderValue::String(value.as_str().as_bytes())),
        Theirs::Timestamp(value) => format!("{:?}", HeaderValue::TimestampMs(value.to_millis().unwrap())),
        Theirs::Uuid(value) => format!("{:?}", HeaderValue::Uuid(value.to_be_bytes())),
        _ => unreachable!(),
    }
}

fn oracle(message: &Message) -> (Vec<(String, String)>, Vec<u8>) {
    let headers =
        message.headers().iter().map(|header| (header.name().as_str().to_owned(), ours(header.value()))).collect();
    (headers, message.payload().to_vec())
}

#[test]
fn every_fixture_frame_reads_as_awss_own_crate_reads_it() {
    for frame in fixture_frames() {
        let message = read_message_from(&mut frame.as_slice()).unwrap();
        let (seen, result, at_boundary) = decode([frame.as_slice()]);
        assert_eq!((seen, result, at_boundary), (vec![oracle(&message)], Ok(()), true));
    }
}

#[test]
fn every_cut_gives_the_same_frames() {
    let stream: Vec<u8> = fixture_frames().concat();
    let whole = decode([stream.as_slice()]);
    assert_eq!(whole.0.len(), fixture_frames().len());
    for at in 0..=stream.len() {
        let (left, right) = stream.split_at(at);
        assert_eq!(decode([left, right]), whole, "cut at {at}");
    }
    assert_eq!(decode(stream.chunks(1)), whole);
}

#[test]
fn only_a_whole_number_of_frames_is_a_boundary() {
    let stream: Vec<u8> = fixture_frames().concat();
    let ends: Vec<usize> = fixture_frames()
        .iter()
        .scan(0, |end, frame| {
            *end += frame.len();
            Some(*end)
        })
        .collect();
    for at in 0..=stream.len() {
        let (_, result, at_boundary) = decode([&stream[..at]]);
        assert_eq!(result, Ok(()));
        assert_eq!(at_boundary, at == 0 || ends.contains(&at), "at {at}");
    }
}

#[test]
fn accessors_name_events_exceptions_and_errors() {
    let mut seen = Vec::new();
    let mut decoder = Decoder::new(Limits::default());
    for frame in fixture_frames() {
        decoder
            .push(&frame, &mut |frame| {
                seen.push(format!(
                    "{} {} {}",
                    frame.message_type().unwrap(),
                    frame.event_type().or(frame.exception_type()).or(frame.error_code()).unwrap(),
                    frame.content_type().unwrap_or("-"),
                ));
            })
            .unwrap();
    }
    assert_eq!(seen[0], "event messageStart application/json");
    assert!(seen.contains(&"exception throttlingException application/json".to_owned()));
    assert!(seen.contains(&"error InternalError -".to_owned()));
}

fn prelude(total: u32, headers: u32) -> Vec<u8> {
    let mut bytes = [total.to_be_bytes(), headers.to_be_bytes()].concat();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

#[test]
fn a_declared_length_out_of_bounds_is_refused_before_anything_is_kept() {
    for (total, headers, error) in [
        (15, 0, DecodeError::FrameTooShort { declared: 15 }),
        (0, 0, DecodeError::FrameTooShort { declared: 0 }),
        (u32::MAX, 0, DecodeError::FrameTooLong { declared: u32::MAX, limit: 16 << 20 }),
        ((16 << 20) + 1, 0, DecodeError::FrameTooLong { declared: (16 << 20) + 1, limit: 16 << 20 }),
        (16, 1, DecodeError::HeadersTooLong { declared: 1 }),
        (1 << 20, (128 << 10) + 1, DecodeError::HeadersTooLong { declared: (128 << 10) + 1 }),
        (100, u32::MAX, DecodeError::HeadersTooLong { declared: u32::MAX }),
    ] {
        let mut decoder = Decoder::new(Limits::default());
        assert_eq!(decoder.push(&prelude(total, headers), &mut |_| {}), Err(error));
        assert_eq!(decoder.partial.capacity(), 0);
    }
}

#[test]
fn memory_grows_with_what_arrived_not_with_what_was_declared() {
    let mut decoder = Decoder::new(Limits::default());
    decoder.push(&prelude(16 << 20, 0), &mut |_| {}).unwrap();
    decoder.push(&[0; 100], &mut |_| {}).unwrap();
    assert!(decoder.partial.capacity() < 1024);
}

#[test]
fn the_first_error_is_the_answer_for_ever() {
    let good = fixture_frames().remove(0);
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    let mut decoder = Decoder::new(Limits::default());
    let mut frames = 0;
    assert_eq!(decoder.push(&[good.clone(), bad].concat(), &mut |_| frames += 1), Err(DecodeError::FrameChecksum));
    assert_eq!(decoder.push(&good, &mut |_| frames += 1), Err(DecodeError::FrameChecksum));
    assert_eq!((frames, decoder.at_boundary()), (1, false));
}

#[test]
fn every_flipped_bit_of_a_frame_is_noticed() {
    let good = fixture_frames().remove(2);
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let (seen, result, _) = decode([bad.as_slice()]);
        assert!(seen.is_empty() && result.is_err(), "bit {bit}");
    }
}

#[test]
fn a_million_empty_frames_cost_no_memory() {
    let mut empty = prelude(16, 0);
    empty.extend_from_slice(&crc32fast::hash(&empty).to_be_bytes());
    let block = empty.repeat(1000);
    let mut decoder = Decoder::new(Limits::default());
    let mut frames = 0u32;
    for _ in 0..1000 {
        decoder.push(&block, &mut |_| frames += 1).unwrap();
    }
    assert_eq!((frames, decoder.partial.capacity()), (1_000_000, 0));
}

fn any_value() -> impl Strategy<Value = Theirs> {
    prop_oneof![
        any::<bool>().prop_map(Theirs::Bool),
        any::<i8>().prop_map(Theirs::Byte),
        any::<i16>().prop_map(Theirs::Int16),
        any::<i32>().prop_map(Theirs::Int32),
        any::<i64>().prop_map(Theirs::Int64),
        proptest::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Theirs::ByteArray(bytes.into())),
        "\\PC{0,30}".prop_map(|text| Theirs::String(text.into())),
        (0i64..4_000_000_000_000).prop_map(|ms| Theirs::Timestamp(aws_smithy_types::DateTime::from_millis(ms))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_message_of_awss_encoder_reads_back_under_any_cut(
        messages in proptest::collection::vec(
            (proptest::collection::vec(("[a-z:]{1,20}", any_value()), 0..6), proptest::collection::vec(any::<u8>(), 0..400)),
            0..6,
        ),
        size in 1usize..200,
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (headers, payload) in messages {
            let headers = headers.into_iter().map(|(name, value)| Header::new(name, value)).collect();
            let message = Message::new_from_parts(headers, payload);
            write_message_to(&message, &mut stream).unwrap();
            expected.push(oracle(&message));
        }
        let (seen, result, at_boundary) = decode(stream.chunks(size));
        prop_assert_eq!(seen, expected);
        prop_assert_eq!((result, at_boundary), (Ok(()), true));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_decode_the_same_under_any_cut(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), size in 1usize..50,
    ) {
        prop_assert_eq!(decode([bytes.as_slice()]), decode(bytes.chunks(size)));
    }
}
