//! Reads the URL of a server that stands in for AWS: `http://` or `https://`, host, port, and a path prefix.
//!
//! User name, query and fragment are refused rather than dropped, and no text of an error repeats the URL, because a
//! refused one may hold a password. It does not resolve the host.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Endpoint, HostPort};

/// Reads a URL.
///
/// # Errors
/// What is wrong, without the URL itself.
pub(super) fn parse(text: &str) -> Result<Endpoint, &'static str> {
    let text = text.trim();
    let (tls, rest) = if let Some(rest) = strip_scheme(text, "https://") {
        (true, rest)
    } else if let Some(rest) = strip_scheme(text, "http://") {
        (false, rest)
    } else {
        return Err("does not begin with `http://` or `https://`");
    };
    if rest.contains('?') || rest.contains('#') {
        return Err("has a query or a fragment");
    }
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    if authority.contains('@') {
        return Err("has a user name");
    }
    let (host, port) = host_and_port(authority)?;
    let port = number(port)?.unwrap_or(if tls { 443 } else { 80 });
    Ok(Endpoint { tls, host, port, path_prefix: path_prefix(path)? })
}

/// Reads `host`, `host:port`, `[::1]:port` or a bare `::1`.
///
/// # Errors
/// What is wrong, without the text itself.
pub(super) fn server(text: &str, default_port: u16) -> Result<HostPort, &'static str> {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Ok(HostPort { host: address.to_string(), port: default_port });
    }
    let (host, port) = host_and_port(text)?;
    Ok(HostPort { host, port: number(port)?.unwrap_or(default_port) })
}

fn number(port: Option<&str>) -> Result<Option<u16>, &'static str> {
    let read = |digits: &str| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|port| plain && *port != 0).ok_or("has no port from 1 to 65535")
    };
    port.map(read).transpose()
}

pub(super) fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let head = text.get(..scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| text.get(scheme.len()..).unwrap_or_default())
}

fn host_and_port(authority: &str) -> Result<(String, Option<&str>), &'static str> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (address, after) = bracketed.split_once(']').ok_or("has an IPv6 address without `]`")?;
        let address: Ipv6Addr = address.parse().map_err(|_| "has no valid IPv6 address in brackets")?;
        return match (after, after.strip_prefix(':')) {
            ("", _) => Ok((address.to_string(), None)),
            (_, Some(port)) => Ok((address.to_string(), Some(port))),
            _ => Err("has no port from 1 to 65535"),
        };
    }
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    if host.is_empty() {
        return Err("has no host");
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // What ends in a number is an IPv4 address or nothing: resolvers read `127.1` and `1.2.3` in surprising ways.
    let numeric = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if host.len() > 253 || !host.split('.').all(label) || (numeric && host.parse::<Ipv4Addr>().is_err()) {
        return Err("has no valid host");
    }
    Ok((host.to_ascii_lowercase(), port))
}

/// The path without its trailing slash, refused unless it can stand before a signed path as it is.
fn path_prefix(path: &str) -> Result<String, &'static str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let plain = |segment: &str| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte))
    };
    if path.is_empty() || path.split('/').skip(1).all(plain) {
        Ok(path.to_owned())
    } else {
        Err("has a path with something other than plain segments")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_host_port_and_prefix_are_read() {
        for (text, tls, host, port, prefix) in [
            ("http://127.0.0.1:9000", false, "127.0.0.1", 9000, ""),
            ("https://bedrock.example.com", true, "bedrock.example.com", 443, ""),
            ("HTTP://Host/", false, "host", 80, ""),
            ("https://h:8443/a/b/", true, "h", 8443, "/a/b"),
            ("http://[::1]:81/x", false, "::1", 81, "/x"),
            ("http://[::1]", false, "::1", 80, ""),
            (
                " https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com\n",
                true,
                "vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com",
                443,
                "",
            ),
        ] {
            let expected = Endpoint { tls, host: host.to_owned(), port, path_prefix: prefix.to_owned() };
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "host",
            "ftp://host",
            "http://",
            "http://:80",
            "http://h:0",
            "http://h:65536",
            "http://h:x",
            "http://h:",
            "http://h:+80",
            "http://user:pw@h",
            "http://h?x",
            "http://h/#f",
            "http://h/../x",
            "http://h//x",
            "http://h/a b",
            "http://h/%2e%2e",
            "http://[::1",
            "http://[::1]x",
            "http://[x]",
            "http://a b",
            "http://127.1",
            "http://h..x",
            "http://é",
            "http://h\r\nx",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
