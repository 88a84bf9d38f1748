//! The reader of request bodies: takes and refuses what `serde_json` does, of any depth, and says where a value stands.
#![no_main]

use dheera_ai_fuzz::json::Reader;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

fuzz_target!(|input: &[u8]| {
    let mut reader = Reader::new(input);
    let place = reader.skip();
    let read = place.clone().filter(|_| reader.end().is_some());
    assert_eq!(read.is_some(), serde_json::from_slice::<IgnoredAny>(input).is_ok());
    if let Some(value) = read.and_then(|place| input.get(place)) {
        assert_eq!(value, input.trim_ascii(), "the value is all but the space around it");
    }
});
