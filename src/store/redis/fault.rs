//! What an error of Redis means for us: is the store away for now, or is something wrong that a human has to mend, and
//! must the connection be made anew. Texts name the remedy and never hold a password.

use redis::{ErrorKind, RedisError};

use super::keys::Keys;
use crate::config::{self, RedisTopology};
use crate::store::StoreError;

/// What an ACL user must be allowed, besides our keys.
const RIGHTS: &str = "+@read +@write +@scripting +@connection +info +time";

/// An error, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) error: StoreError,
    /// The connection is of no more use, or leads to the wrong server.
    pub(super) reconnect: bool,
    /// The connection broke before there was an answer.
    pub(super) broken: bool,
}

/// What the advice depends on.
#[derive(Debug)]
pub(super) struct Remedies {
    key_pattern: String,
    is_cluster: bool,
}

impl Remedies {
    pub(super) fn new(config: &config::Redis, keys: &Keys) -> Self {
        Self { key_pattern: keys.pattern(), is_cluster: matches!(config.topology, RedisTopology::Cluster(_)) }
    }

    pub(super) fn judge(&self, error: &RedisError) -> Fault {
        let away = |reconnect| Fault { error: StoreError::Unavailable(error.to_string()), reconnect, broken: false };
        let wrong = |text: String, reconnect| Fault { error: StoreError::Failed(text), reconnect, broken: false };
        let text = error.to_string();
        // Inside a script, and while a database is chosen, the server says so in words only.
        let code = match error.code() {
            Some("ERR") | None if text.contains("can't run this command") => Some("NOPERM"),
            Some("ERR") | None if text.contains("Authentication required") => Some("NOAUTH"),
            code => code,
        };
        match code {
            Some("READONLY" | "MASTERDOWN") => away(!self.is_cluster),
            Some("MOVED" | "ASK" | "CROSSSLOT") if !self.is_cluster => {
                wrong(format!("this Redis is a cluster; configure it as one, by redis_startup_nodes ({error})"), false)
            }
            Some("LOADING" | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK" | "BUSY" | "NOREPLICAS" | "UNKILLABLE") => {
                away(false)
            }
            Some("NOAUTH" | "WRONGPASS") => {
                wrong(format!("Redis refuses the user name or the password: {error}"), true)
            }
            Some("NOPERM") => wrong(
                format!("the Redis user may not do this: {error}; give it `{} {RIGHTS}`", self.key_pattern),
                false,
            ),
            Some("OOM") => wrong(
                format!("Redis is out of memory: raise maxmemory and keep maxmemory-policy noeviction ({error})"),
                false,
            ),
            Some("MISCONF") => wrong(format!("Redis cannot write to its disk: {error}"), false),
            Some(_) => wrong(format!("Redis answered with an error: {error}"), false),
            None => Self::judge_ours(error),
        }
    }

    /// Errors that did not come from the server.
    fn judge_ours(error: &RedisError) -> Fault {
        let text = error.to_string();
        let wrong = |text: String| Fault { error: StoreError::Failed(text), reconnect: true, broken: false };
        match error.kind() {
            ErrorKind::AuthenticationFailed => wrong(format!("Redis refuses the user name or the password: {text}")),
            ErrorKind::InvalidClientConfig => wrong(format!("the Redis settings cannot be used: {text}")),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
                wrong(format!("what answers does not speak as Redis does: {text}"))
            }
            _ => {
                let error = StoreError::Unavailable(text);
                Fault { error, reconnect: true, broken: true }
            }
        }
    }

    /// Whether a server is one we can use, by what `INFO` says.
    pub(super) fn check(&self, greeting: &str) -> Result<(), Fault> {
        let field =
            |name: &str| greeting.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let away =
            |text: &str| Err(Fault { error: StoreError::Unavailable(text.to_owned()), reconnect: true, broken: false });
        let wrong = |text: String| Err(Fault { error: StoreError::Failed(text), reconnect: true, broken: false });
        if field("loading") == Some("1") {
            return away("Redis is loading its data");
        }
        if field("role") == Some("slave") {
            return away("this Redis is a replica");
        }
        if field("cluster_enabled") == Some("1") && !self.is_cluster {
            return wrong("this Redis is a cluster; configure it as one, by redis_startup_nodes".to_owned());
        }
        if let Some(version) = field("redis_version") {
            let mut parts = version.split('.').map(|part| part.parse::<u64>().unwrap_or(0));
            if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < (6, 2) {
                return wrong(format!("Redis {version} is too old: 6.2 or newer is needed"));
            }
        }
        if let Some(policy) = field("maxmemory_policy")
            && policy != "noeviction"
            && field("maxmemory").is_some_and(|bytes| bytes != "0")
        {
            log::warn!("Redis has maxmemory-policy {policy} and may drop budgets when it is full; set noeviction");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedies() -> Remedies {
        Remedies { key_pattern: "~{n}:*".to_owned(), is_cluster: false }
    }

    #[test]
    fn a_server_is_checked_by_what_it_says() {
        let check = |text: &str| remedies().check(text).map_err(|fault| fault.error);
        assert_eq!(check(""), Ok(()));
        assert_eq!(check("redis_version:6.2.0\r\nrole:master\r\nloading:0\r\ncluster_enabled:0\r\n"), Ok(()));
        assert!(matches!(check("redis_version:6.0.16\r\n"), Err(StoreError::Failed(text)) if text.contains("6.2")));
        assert!(matches!(check("role:slave\r\n"), Err(StoreError::Unavailable(_))));
        assert!(matches!(check("loading:1\r\n"), Err(StoreError::Unavailable(_))));
        assert!(matches!(check("cluster_enabled:1\r\n"), Err(StoreError::Failed(_))));
    }

    #[test]
    fn a_broken_connection_is_made_anew_and_the_command_repeated() {
        let broken = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        let fault = remedies().judge(&broken);
        assert!(matches!(fault.error, StoreError::Unavailable(_)));
        assert!(fault.reconnect && fault.broken);
    }
}
