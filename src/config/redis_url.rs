//! Reads the URL of a Redis server: `redis://` or `rediss://` (TLS), user, password, host, port and database, as
//! the "Uniform Resource Identifier Scheme" of Redis (IANA, `redis`) has them.
//!
//! Percent-encoding is undone in user and password. Anything that would be dropped (a query, a fragment) is refused,
//! and no text of an error repeats the URL, because it may hold a password.

use percent_encoding::percent_decode_str;

use super::{HostPort, defaults, endpoint_url};
use crate::types::secret::Secret;

/// What a URL says; the rest has keys of its own.
#[derive(Debug)]
pub(super) struct RedisUrl {
    pub(super) tls: bool,
    pub(super) server: HostPort,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: Option<i64>,
}

/// Whether a text is meant as the URL of a Redis server.
pub(super) fn is_redis(text: &str) -> bool {
    let text = text.trim();
    ["redis://", "rediss://"].iter().any(|scheme| endpoint_url::strip_scheme(text, scheme).is_some())
}

/// Reads a URL.
///
/// # Errors
/// What is wrong, without the URL itself.
pub(super) fn parse(text: &str) -> Result<RedisUrl, &'static str> {
    let text = text.trim();
    let (tls, rest) = if let Some(rest) = endpoint_url::strip_scheme(text, "rediss://") {
        (true, rest)
    } else if let Some(rest) = endpoint_url::strip_scheme(text, "redis://") {
        (false, rest)
    } else {
        return Err("does not begin with `redis://` or `rediss://`");
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if path.contains('@') {
        return Err("has a `/`, `?` or `#` before its `@`: percent-encode it in the password (%2F, %3F, %23)");
    }
    if path.contains(['?', '#']) {
        return Err("has a query or a fragment");
    }
    let (user, address) = authority.rsplit_once('@').map_or((None, authority), |(user, rest)| (Some(user), rest));
    let (username, password) = match user {
        Some(user) => {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            (decoded(name)?, decoded(password)?)
        }
        None => (None, None),
    };
    Ok(RedisUrl {
        tls,
        server: endpoint_url::server(address, defaults::REDIS_PORT)?,
        username,
        password: password.map(Secret::new),
        database: database(path)?,
    })
}

/// `None` for an empty text.
fn decoded(text: &str) -> Result<Option<String>, &'static str> {
    for rest in text.split('%').skip(1) {
        if !rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err("has a `%` in its user or password that two hexadecimal digits do not follow");
        }
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "has a user or password that is not UTF-8")?;
    if decoded.chars().any(char::is_control) {
        return Err("has a control character in its user or password");
    }
    Ok(if decoded.is_empty() { None } else { Some(decoded.into_owned()) })
}

fn database(path: &str) -> Result<Option<i64>, &'static str> {
    match path.strip_prefix('/').unwrap_or(path) {
        "" => Ok(None),
        digits if digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(Some(digits.parse().map_err(|_| "has a path that is not the number of a database")?))
        }
        _ => Err("has a path that is not the number of a database"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_url_is_read() {
        for (text, tls, host, port, user, password, database) in [
            ("redis://localhost", false, "localhost", 6379, None, None, None),
            ("redis://localhost/", false, "localhost", 6379, None, None, None),
            (" REDISS://Cache.Example:6380/15\n", true, "cache.example", 6380, None, None, Some(15)),
            ("redis://:pw@10.0.0.1:1", false, "10.0.0.1", 1, None, Some("pw"), None),
            ("redis://user:pw@h", false, "h", 6379, Some("user"), Some("pw"), None),
            ("redis://user@h/0", false, "h", 6379, Some("user"), None, Some(0)),
            ("redis://u%40x:p%3A%2F%25%C3%A9@[::1]:7/3", false, "::1", 7, Some("u@x"), Some("p:/%é"), Some(3)),
            ("redis://a:b@c:d@h", false, "h", 6379, Some("a"), Some("b@c:d"), None),
        ] {
            let url = parse(text).unwrap_or_else(|what| panic!("{text}: {what}"));
            assert_eq!((url.tls, url.database), (tls, database), "{text}");
            assert_eq!(url.server, HostPort { host: host.to_owned(), port }, "{text}");
            assert_eq!(url.username.as_deref(), user, "{text}");
            assert_eq!(url.password.as_ref().map(Secret::expose), password, "{text}");
            assert!(is_redis(text));
        }
    }

    #[test]
    fn what_would_be_dropped_or_misread_is_refused() {
        for text in [
            "",
            "localhost:6379",
            "postgres://h/db",
            "unix:///tmp/redis.sock",
            "redis+sentinel://h",
            "redis://",
            "redis://:pw@",
            "redis://h:0",
            "redis://h:x",
            "redis://h/x",
            "redis://h/1/2",
            "redis://h/-1",
            "redis://h/123456",
            "redis://h?db=1",
            "redis://h/0#x",
            "redis://:p/w@h",
            "redis://:p#w@h",
            "redis://:p%w@h",
            "redis://:p%4@h",
            "redis://:p%ff@h",
            "redis://:p%0a@h",
            "redis://a b",
        ] {
            let what = parse(text).expect_err(text);
            assert!(!what.contains("pw"), "{text}");
        }
    }

    proptest::proptest! {
        /// Whatever stands in a URL, reading it ends with a server that can be named or with a reason.
        #[test]
        fn no_text_breaks_the_reader(rest in "[a-z0-9:@/%?#.\\[\\]é \u{0}-]{0,40}") {
            if let Ok(url) = parse(&format!("redis://{rest}")) {
                assert!(!url.server.host.is_empty() && url.server.port > 0);
            }
        }
    }
}
