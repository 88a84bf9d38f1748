//! The canonical request of `SigV4`, for every service but S3: what AWS recomputes from the request it received.
//!
//! Each byte outside the unreserved set of the path **as sent** is percent-encoded, so an escape on the wire is escaped
//! once more (`%3A` → `%253A`). AWS also folds `.`, `..` and `//`; the router refuses such paths, so nothing is folded
//! here. Headers are trimmed, the query is decoded, encoded and sorted.
//! Rests on AWS's "Create a signed AWS API request" and on botocore 1.44.5 as oracle.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::SignableRequest;

/// Bytes that `SigV4` never encodes (RFC 3986's unreserved set).
const UNRESERVED: [bool; 256] = {
    let mut table = [false; 256];
    let set = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    let mut at = 0;
    while at < set.len() {
        table[set[at] as usize] = true;
        at += 1;
    }
    table
};

/// Headers in the order of the canonical request; values of one name keep their order.
pub(super) fn sorted<'a>(headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut headers = headers.to_vec();
    headers.sort_by_key(|(name, _)| *name);
    headers
}

/// The names of sorted headers, each once.
pub(super) fn distinct_names<'a>(headers: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = &'a str> {
    let mut previous = None;
    headers.iter().filter_map(move |(name, _)| (previous.replace(*name) != Some(*name)).then_some(*name))
}

/// The canonical request. `headers` are those of `request`, [`sorted`].
pub(super) fn request(request: &SignableRequest<'_>, headers: &[(&str, &str)]) -> Vec<u8> {
    let headers_bytes: usize = headers.iter().map(|(name, value)| 2 * name.len() + value.len() + 3).sum();
    let estimate = request.method.len() + request.path.len() * 3 / 2 + request.query.len() * 3 / 2 + headers_bytes + 96;
    let mut out = Vec::with_capacity(estimate);
    out.extend_from_slice(request.method.as_bytes());
    out.push(b'\n');
    append_path(&mut out, request.path);
    out.push(b'\n');
    out.extend_from_slice(canonical_query(request.query).as_bytes());
    out.push(b'\n');
    append_headers(&mut out, headers);
    out.push(b'\n');
    for (at, name) in distinct_names(headers).enumerate() {
        if at > 0 {
            out.push(b';');
        }
        out.extend_from_slice(name.as_bytes());
    }
    out.push(b'\n');
    out.extend_from_slice(request.payload_sha256_hex.as_bytes());
    out
}

/// The query as AWS canonicalises it: `name=value` pairs, each part decoded and percent-encoded, sorted by encoded
/// name, then by encoded value. Empty pairs (`a=1&&b=2`) vanish. A query that is canonical already is returned as it
/// is.
///
/// `+` is read as a plus. Signers differ there (botocore leaves it alone, `aws-sigv4` reads a space) and no SDK sends
/// one; whoever forwards a query should send this form of it, which has only one reading.
#[must_use]
pub fn canonical_query(query: &str) -> Cow<'_, str> {
    if query.is_empty() {
        return Cow::Borrowed(query);
    }
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (encode_again(name), encode_again(value))
        })
        .collect();
    pairs.sort_unstable();
    let mut out = String::with_capacity(query.len() + pairs.len());
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(&name);
        out.push('=');
        out.push_str(&value);
    }
    if out == query { Cow::Borrowed(query) } else { Cow::Owned(out) }
}

/// Percent-decodes `part` and encodes every byte outside the unreserved set. A `%` that starts no escape is a `%`.
fn encode_again(part: &str) -> String {
    let mut out = String::with_capacity(part.len() + 8);
    let mut rest = part.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, next) = match (first, tail) {
            (b'%', [high, low, after @ ..]) => match (hex_value(*high), hex_value(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (first, tail),
            },
            _ => (first, tail),
        };
        if UNRESERVED[usize::from(byte)] {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
        rest = next;
    }
    out
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn append_path(out: &mut Vec<u8>, path: &str) {
    if path.is_empty() {
        out.push(b'/');
    }
    let mut rest = path.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte != b'/' && !UNRESERVED[usize::from(byte)]) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, tail)) = tail.split_first() else { break };
        let digits = b"0123456789ABCDEF";
        out.extend_from_slice(&[b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
        rest = tail;
    }
    out.extend_from_slice(rest);
}

fn append_headers(out: &mut Vec<u8>, headers: &[(&str, &str)]) {
    let mut previous = None;
    for (name, value) in headers {
        if previous == Some(*name) {
            // Reopens the line of the same name.
            out.pop();
            out.push(b',');
        } else {
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            previous = Some(*name);
        }
        append_trimmed(out, value.as_bytes());
        out.push(b'\n');
    }
}

/// AWS's `Trimall`: no white space at the ends, one space for a run inside.
fn append_trimmed(out: &mut Vec<u8>, value: &[u8]) {
    let value = value.trim_ascii();
    // A session token is a kilobyte without a space; this pass over it vectorises, the one over pairs does not.
    let has_space = value.iter().fold(false, |found, byte| found | is_space(*byte));
    if !has_space || !value.windows(2).any(|pair| is_space(pair[0]) && (is_space(pair[1]) || pair[0] != b' ')) {
        out.extend_from_slice(value);
        return;
    }
    for (at, word) in value.split(|byte| is_space(*byte)).filter(|word| !word.is_empty()).enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

const fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_encoded_and_sorted() {
        for (raw, expected) in [
            ("", ""),
            ("a", "a="),
            ("a=", "a="),
            ("b=1&a=2", "a=2&b=1"),
            ("a=2&a=1&A=3", "A=3&a=1&a=2"),
            // `=` sorts after `-`, so comparing whole pairs would get this wrong.
            ("a-=1&a=2", "a=2&a-=1"),
            ("&&a=1&&", "a=1"),
            ("a=b=c", "a=b%3Dc"),
            ("a=%3a%7E%41", "a=%3A~A"),
            ("a=b c+d", "a=b%20c%2Bd"),
            ("a=%zz%", "a=%25zz%25"),
            ("ሴ=%e1%88%b4", "%E1%88%B4=%E1%88%B4"),
        ] {
            assert_eq!(canonical_query(raw), expected, "{raw}");
            assert!(matches!(canonical_query(expected), Cow::Borrowed(_)), "{expected} is stable");
        }
    }

    #[test]
    fn an_escape_in_the_path_is_escaped_once_more() {
        for (raw, expected) in [
            ("", "/"),
            ("/model/m%3A0/converse", "/model/m%253A0/converse"),
            ("/model/m:0/converse", "/model/m%3A0/converse"),
            ("/a+b%2Bc~-._é/", "/a%2Bb%252Bc~-._%C3%A9/"),
        ] {
            let mut out = Vec::new();
            append_path(&mut out, raw);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn white_space_in_a_header_is_trimmed_and_folded() {
        for (raw, expected) in
            [("", ""), (" \t ", ""), (" a b ", "a b"), ("a  b \t c", "a b c"), ("a\tb", "a b"), ("\"a  b\"", "\"a b\"")]
        {
            let mut out = Vec::new();
            append_trimmed(&mut out, raw.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{raw:?}");
        }
    }
}
