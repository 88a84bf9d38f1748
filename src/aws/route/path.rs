//! The text of a path: what is refused before any route is looked for, and how one segment is decoded and encoded.
//!
//! A path is never normalised. What one server reads as `..` and another as a label is refused, so that the path that
//! was authorised, the path that is signed and the path that AWS reads are the same bytes. Encoded slashes stay legal
//! inside a segment, because every SDK writes an ARN that way. Rests on RFC 3986 and on AWS's URI encoding for SigV4
//! (everything but `A-Z a-z 0-9 - . _ ~` is escaped).

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::RouteError;

/// What AWS escapes in a path segment.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The path prefix under which clients may address the proxy.
const PREFIX: &str = "/bedrock";

/// What [`check`] found out about a path that it let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checked {
    /// A letter, digit, `-`, `.` or `_` is percent-encoded, which no SDK does. In a model name it is harmless, because
    /// the name is decoded; elsewhere `%6Cist` is a label to us and perhaps the literal `list` to AWS.
    pub(super) encodes_plain_text: bool,
}

/// Refuses a raw path that two readers could understand in two ways. Does not allocate for a path of plain ASCII.
pub(super) fn check(path: &str) -> Result<Checked, RouteError> {
    let mut rest = path.as_bytes();
    if !path.is_empty() && !path.starts_with('/') {
        return Err(RouteError::BadPath("does not start with '/'"));
    }
    // A piece is what stands between two slashes, encoded ones included: `%2F..%2F` climbs as `/../` does.
    let mut piece = Piece::default();
    let mut after_slash = false;
    let mut encodes_non_ascii = false;
    let mut encodes_plain_text = false;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'/' => {
                if after_slash {
                    return Err(RouteError::BadPath("has an empty segment ('//')"));
                }
                piece.end()?;
            }
            b'%' => {
                let Some((value, after)) = escape(tail) else {
                    return Err(RouteError::BadPath("has a '%' that two hexadecimal digits do not follow"));
                };
                rest = after;
                match value {
                    0..=0x1f | 0x7f => return Err(RouteError::BadPath("holds an encoded control character")),
                    b'%' if hides_structure(after) => {
                        return Err(RouteError::BadPath("encodes a dot, a slash or a control character twice"));
                    }
                    b'/' | b'\\' => piece.end()?,
                    _ => piece.push(value),
                }
                encodes_non_ascii |= !value.is_ascii();
                encodes_plain_text |= value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_');
            }
            b'\\' => return Err(RouteError::BadPath("holds a backslash")),
            b';' => return Err(RouteError::BadPath("holds a ';', which no operation knows; write it %3B")),
            b'?' | b'#' => return Err(RouteError::BadPath("holds a '?' or '#'")),
            0..=0x20 | 0x7f => return Err(RouteError::BadPath("holds a space or a control character")),
            0x80.. => return Err(RouteError::BadPath("holds a character outside ASCII that is not percent-encoded")),
            _ => piece.push(byte),
        }
        after_slash = byte == b'/';
    }
    piece.end()?;
    if encodes_non_ascii && path.split('/').any(|segment| decode_segment(segment).is_none()) {
        return Err(RouteError::BadPath("does not decode to text in UTF-8 without control characters"));
    }
    Ok(Checked { encodes_plain_text })
}

/// The native path of a checked one: without the prefix, `/` when nothing is left.
pub(super) fn native(path: &str) -> &str {
    let path = match path.strip_prefix(PREFIX) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => path,
    };
    if path.is_empty() { "/" } else { path }
}

/// Decodes one raw segment, strictly and once. `None` when a `%` is not followed by two hexadecimal digits, when the
/// result is not UTF-8, or when it holds a control character.
#[must_use]
pub fn decode_segment(raw: &str) -> Option<Cow<'_, str>> {
    let decoded = if raw.contains('%') {
        let mut bytes = Vec::with_capacity(raw.len());
        let mut rest = raw.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            if byte == b'%' {
                let (value, after) = escape(tail)?;
                bytes.push(value);
                rest = after;
            } else {
                bytes.push(byte);
                rest = tail;
            }
        }
        Cow::Owned(String::from_utf8(bytes).ok()?)
    } else {
        Cow::Borrowed(raw)
    };
    (!decoded.chars().any(char::is_control)).then_some(decoded)
}

/// Appends `text` as one path segment, escaped as AWS's SDKs do.
pub(super) fn push_encoded(path: &mut String, text: &str) {
    path.extend(utf8_percent_encode(text, ESCAPED));
}

/// A stretch of the path that could be a dot segment once it is decoded.
#[derive(Default)]
struct Piece {
    len: usize,
    has_other_than_dots: bool,
}

impl Piece {
    fn push(&mut self, byte: u8) {
        self.len += 1;
        self.has_other_than_dots |= byte != b'.';
    }

    fn end(&mut self) -> Result<(), RouteError> {
        if matches!(self.len, 1 | 2) && !self.has_other_than_dots {
            return Err(RouteError::BadPath("has a '.' or '..' segment"));
        }
        *self = Self::default();
        Ok(())
    }
}

/// The byte that two hexadecimal digits at the start of `text` stand for, and what follows them.
fn escape(text: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], after) = text.split_first_chunk::<2>()?;
    Some((hex_digit(high)? << 4 | hex_digit(low)?, after))
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Whether the text behind an encoded `%` becomes structure when somebody decodes once more, however deep it lies
/// (`%252e`, `%25252e`). A percent sign that is part of a name (`100%25`) does not.
fn hides_structure(mut after: &[u8]) -> bool {
    loop {
        match escape(after) {
            Some((b'%', deeper)) => after = deeper,
            Some((value, _)) => return matches!(value, 0..=0x1f | 0x7f | b'.' | b'/' | b'\\'),
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Checked, check, decode_segment, native};

    #[test]
    fn the_prefix_is_a_whole_segment() {
        for (path, expected) in [
            ("/bedrock", "/"),
            ("/bedrock/", "/"),
            ("/bedrock/model/x/converse", "/model/x/converse"),
            ("/bedrocks/x", "/bedrocks/x"),
            ("/model/x/converse", "/model/x/converse"),
            ("", "/"),
            ("/", "/"),
        ] {
            assert_eq!(native(path), expected, "{path}");
        }
    }

    #[test]
    fn legitimate_paths_pass() {
        for path in [
            "",
            "/",
            "/bedrock",
            "/sessions/",
            "/model/us.anthropic.claude-3-5-sonnet-20240620-v1%3A0/converse",
            "/model/us.anthropic.claude-3-5-sonnet-20240620-v1:0/converse",
            "/model/arn%3Aaws%3Abedrock%3Aus-west-2%3A1%3Ainference-profile%2Fabc/invoke",
            "/model/aws/anthropic/claude/converse",
            "/model/my%20model/converse",
            "/model/mod%C3%A8le/converse",
            "/model/.../converse",
            "/model/v1.2..3/converse",
            "/knowledgebases/K/datasources/D/documents/s3%3A%2F%2Fbucket%2Fa%5Cb/content",
            "/documents/100%25/content",
            "/documents/a%2520b/content",
            "/documents/a%3Bb",
            "/runtimes/x/invocations/.well-known/agent-card.json",
        ] {
            assert_eq!(check(path), Ok(Checked { encodes_plain_text: false }), "{path}");
        }
    }

    #[test]
    fn paths_with_two_readings_are_refused() {
        for path in [
            "model/x/converse",
            "*",
            "//",
            "//model/x/converse",
            "/model//converse",
            "/bedrock//model/x/converse",
            "/sessions//",
            "/.",
            "/..",
            "/model/../converse",
            "/model/./converse",
            "/model/%2e%2e/converse",
            "/model/.%2E/converse",
            "/model/%2E/converse",
            "/model/%252e%252e/converse",
            "/model/%252E/converse",
            "/model/%25252e/converse",
            "/model/a%252fb/converse",
            "/model/a%252Fb/converse",
            "/model/a%255cb/converse",
            "/model/a%2500/converse",
            "/model/a%250d%250ab/converse",
            "/model/..%2Fadmin/converse",
            "/model/a%2F..%2Fb/converse",
            "/model/a%2f%2e%2e/converse",
            "/model/a%2F./converse",
            "/model/a%5C..%5Cb/converse",
            "/model/a\\b/converse",
            "/model/..\\x/converse",
            "/model/a;b=c/converse",
            "/model/x/converse;jsessionid=1",
            "/model/a\0/converse",
            "/model/a\r\nX: y/converse",
            "/model/a\tb/converse",
            "/model/a b/converse",
            "/model/a\u{7f}/converse",
            "/model/modèle/converse",
            "/model/a%00/converse",
            "/model/a%0d%0aX/converse",
            "/model/a%0A/converse",
            "/model/a%7F/converse",
            "/model/a%/converse",
            "/model/a%2/converse",
            "/model/a%zz/converse",
            "/model/a%+1/converse",
            "/model/x/converse%",
            "/model/%c0%ae%c0%ae/converse",
            "/model/%ff/converse",
            "/model/%C3/converse",
            "/model/%C2%85/converse",
            "/model/x/converse?a=b",
            "/model/x/converse#a",
        ] {
            assert!(check(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_segment_is_decoded_strictly_and_once() {
        for (raw, expected) in [
            ("plain", Some("plain")),
            ("a%3Ab%2fc", Some("a:b/c")),
            ("a%2520b", Some("a%20b")),
            ("a+b", Some("a+b")),
            ("mod%C3%A8le", Some("modèle")),
            ("", Some("")),
            ("%", None),
            ("%4", None),
            ("%4g", None),
            ("%C3", None),
            ("%00", None),
            ("a\nb", None),
            ("%C2%85", None),
        ] {
            assert_eq!(decode_segment(raw).as_deref(), expected, "{raw:?}");
        }
    }
}
