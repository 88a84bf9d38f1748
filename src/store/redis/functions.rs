//! `functions.lua` as Redis is given it: as a function library (Redis 7 and later; it is stored and replicated like data),
//! or as a script called by its digest, where functions do not exist (Redis 6.2) or the ACL forbids them.
//!
//! The names contain a digest of the source: versions of the proxy that differ in it can share one Redis while they are
//! replaced, and a library of our name is known to have our content.

use redis::Cmd;
use sha2::{Digest, Sha256};

use super::keys::Keys;

const SOURCE: &str = include_str!("functions.lua");
/// The functions of the source.
const NAMES: [&str; 11] =
    ["reserve", "extend", "apply", "touch", "reap", "balances", "claim", "counts", "commit", "list", "changes"];

/// How the functions are called on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Functions,
    /// With the digest that Redis gave the script.
    Script(String),
}

/// The source with its two wrappings.
#[derive(Debug)]
pub(super) struct Library {
    name: String,
}

impl Library {
    pub(super) fn new() -> Self {
        let digest = Sha256::digest(SOURCE.as_bytes());
        let begin = digest.iter().take(6).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        Self { name: format!("dheera_ai_{begin:012x}") }
    }

    /// Answers an error, which [`is_already_loaded`] recognises, where the library is there.
    pub(super) fn load_functions(&self) -> Cmd {
        // While it is loaded a library sees no globals, so no loop over a table can do this.
        let registrations = NAMES.map(|function| {
            format!(
                "redis.register_function('{}_{function}', \
                 function(keys, args) return commands.{function}(keys, args, 1) end)",
                self.name
            )
        });
        let text = format!("#!lua name={}\n{SOURCE}\n{}\n", self.name, registrations.join("\n"));
        let mut command = redis::cmd("FUNCTION");
        command.arg("LOAD").arg(text);
        command
    }

    /// Answers the script's digest.
    #[expect(clippy::unused_self, reason = "belongs to the other wrapping")]
    pub(super) fn load_script(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(format!("{SOURCE}\nreturn commands[ARGV[1]](KEYS, ARGV, 2)\n"));
        command
    }

    /// The beginning of a call; the function's own arguments follow.
    pub(super) fn call(&self, mode: &Mode, function: &str, keys: &Keys) -> Cmd {
        match mode {
            Mode::Functions => {
                let mut command = redis::cmd("FCALL");
                command.arg(format!("{}_{function}", self.name)).arg(1).arg(keys.leases());
                command
            }
            Mode::Script(digest) => {
                let mut command = redis::cmd("EVALSHA");
                command.arg(digest).arg(1).arg(keys.leases()).arg(function);
                command
            }
        }
    }
}

/// The library is there, with our content, because its name says so.
pub(super) fn is_already_loaded(error: &redis::RedisError) -> bool {
    mentions(error, "already exists")
}

/// Redis does not have the functions (any more): emptied, or replaced by a server that never had them.
pub(super) fn is_not_loaded(error: &redis::RedisError) -> bool {
    error.code() == Some("NOSCRIPT") || mentions(error, "function not found")
}

/// This server or this user has no functions at all.
pub(super) fn are_functions_missing(error: &redis::RedisError) -> bool {
    error.code() == Some("NOPERM") || mentions(error, "unknown command")
}

fn mentions(error: &redis::RedisError, words: &str) -> bool {
    error.detail().is_some_and(|detail| detail.to_ascii_lowercase().contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(command: &Cmd) -> String {
        String::from_utf8(command.get_packed_command()).unwrap().replace("\r\n", " ")
    }

    #[test]
    fn both_ways_call_the_same_function() {
        let (library, keys) = (Library::new(), Keys::new("n"));
        let name = format!("{}_reap", library.name);
        let mut command = library.call(&Mode::Functions, "reap", &keys);
        assert_eq!(packed(command.arg("5")), format!("*5 $5 FCALL ${} {name} $1 1 $5 {{n}}:z $1 5 ", name.len()));
        let mut command = library.call(&Mode::Script("abc".to_owned()), "reap", &keys);
        assert_eq!(packed(command.arg("5")), "*6 $7 EVALSHA $3 abc $1 1 $5 {n}:z $4 reap $1 5 ");
    }

    #[test]
    fn every_function_of_the_source_is_registered() {
        let defined: Vec<_> =
            SOURCE.lines().filter_map(|line| line.strip_prefix("function commands.")?.split('(').next()).collect();
        assert_eq!(defined, NAMES);
    }

    #[test]
    fn the_source_writes_no_number_with_tostring() {
        let code: Vec<_> = SOURCE.lines().map(|line| line.split("--").next().unwrap()).collect();
        let code = code.join("\n");
        assert_eq!(code.matches("tostring(").count(), 1, "only in the text of an error");
        assert!(!code.contains("cjson"));
    }
}
