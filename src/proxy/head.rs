//! Looks for fields in the head of a request. There are a dozen of them and most of what is looked for is not there, so
//! that comparing lengths, and bytes where those are equal, takes less than hashing a name.

use http::{HeaderMap, HeaderValue};

/// All values of a field by its lower-case name, in order.
pub(super) fn values<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h HeaderValue> {
    headers.iter().filter(move |(known, _)| known.as_str() == name).map(|(_, value)| value)
}

/// The first of them, as bytes.
pub(super) fn first<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    values(headers, name).next().map(HeaderValue::as_bytes)
}

/// The first of them, where it is visible ASCII.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    values(headers, name).next()?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn fields_are_found_as_the_map_finds_them() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-a", "1"), ("Authorization", "2"), ("x-a", "3"), ("x-b", "\u{fc}"), ("x-aa", "4")] {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        for name in ["x-a", "authorization", "x-b", "x-aa", "x-c", "x", ""] {
            assert_eq!(first(&headers, name), headers.get(name).map(HeaderValue::as_bytes), "{name}");
            assert!(values(&headers, name).eq(headers.get_all(name)), "{name}");
        }
        assert_eq!((text(&headers, "x-a"), text(&headers, "x-b")), (Some("1"), None));
    }
}
