//! Soft budgets: limits that warn and refuse nothing. Whether one is reached is asked of the store once the cost that
//! may have reached it is booked there, and a mark on the account lets only one replica tell of it, once a period.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;

use crate::budget::command::{AccountId, Balance, Charge, Scope};
use crate::budget::entry::Row;
use crate::types::money::NanoUsd;
use crate::types::secret::Secret;

/// The mark on an account.
pub const MARK: &str = "soft";

/// Accounts whose mark is known to be set, so that nobody asks again; forgotten beyond.
const CLAIMED_MAX: usize = 10_000;

/// A soft budget that was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoftBudget {
    pub scope: Scope,
    pub account: AccountId,
    /// The key's id, the team's id …
    pub id: String,
    /// Of a key, where it has one.
    pub alias: Option<String>,
    pub spent: NanoUsd,
    pub amount: NanoUsd,
    /// Unix milliseconds by the store's clock.
    pub at_ms: u64,
}

/// Told of soft budgets as they are reached. Must not block.
pub type SoftHook = Arc<dyn Fn(SoftBudget) + Send + Sync>;

/// An account that may have reached its soft budget.
#[derive(Debug, Clone)]
pub struct Suspect {
    pub scope: Scope,
    pub alias: Option<String>,
    pub amount: NanoUsd,
    /// The command that must be booked before it is worth asking.
    pub after: u64,
}

/// Accounts to be asked for.
#[derive(Debug, Default)]
pub struct Watch {
    suspects: Mutex<HashMap<AccountId, Suspect>>,
    claimed: Mutex<HashSet<AccountId>>,
}

impl Watch {
    /// A call was settled by command `after`. `balances` are those of its reservation, which hold all that it and the
    /// calls in flight beside it may cost; empty when they are not known.
    pub fn settled(&self, soft: &[(usize, NanoUsd)], charges: &[Charge], balances: &[Balance], row: &Row, after: u64) {
        for (index, amount) in soft {
            let Some(charge) = charges.get(*index) else { continue };
            let may = balances.get(*index).is_none_or(|known| known.spent.saturating_add(known.reserved) >= *amount);
            if !may || lock(&self.claimed).contains(&charge.account) {
                continue;
            }
            let alias = row.key_alias.clone().filter(|_| matches!(charge.scope, Scope::Key | Scope::KeyModel));
            let suspect = Suspect { scope: charge.scope, alias, amount: *amount, after };
            lock(&self.suspects).insert(charge.account.clone(), suspect);
        }
    }

    #[must_use]
    pub fn suspects(&self) -> Vec<(AccountId, Suspect)> {
        lock(&self.suspects).iter().map(|(account, suspect)| (account.clone(), suspect.clone())).collect()
    }

    /// Nothing in flight can reach it.
    pub fn clear(&self, account: &AccountId, suspect: &Suspect) {
        let mut suspects = lock(&self.suspects);
        // Not if another call was settled since.
        if suspects.get(account).is_some_and(|now| now.after == suspect.after) {
            suspects.remove(account);
        }
    }

    /// Somebody has told of it.
    pub fn told(&self, account: &AccountId) {
        lock(&self.suspects).remove(account);
        let mut claimed = lock(&self.claimed);
        if claimed.len() >= CLAIMED_MAX {
            claimed.clear();
        }
        claimed.insert(account.clone());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `key/<id>/…`: whose account it is. Ids are escaped in account names.
#[must_use]
pub fn id_of(account: &AccountId) -> String {
    let escaped = account.as_str().split('/').nth(1).unwrap_or_default();
    let bytes = escaped.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = escaped.get(at + 1..at + 3).filter(|_| *byte == b'%');
        if let Some(code) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            plain.push(code);
            at += 3;
        } else {
            plain.push(*byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Posts a JSON document about every soft budget that is reached.
#[derive(Clone)]
pub struct Webhook {
    url: Secret,
    agent: ureq::Agent,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Webhook {
    const TRIES: u32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(5);

    /// The URL is a secret: those of chat systems hold their token.
    #[must_use]
    pub fn new(url: Secret) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Self::TIMEOUT))
            .max_redirects(0)
            .user_agent(concat!("dheera_ai/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { url, agent: config.into() }
    }

    /// A hook that posts in the background. It must be called within a tokio runtime, as the ledger does.
    #[must_use]
    pub fn hook(self) -> SoftHook {
        Arc::new(move |reached| {
            let webhook = self.clone();
            drop(tokio::spawn(async move { webhook.post(&reached).await }));
        })
    }

    /// Posts one document, at most three times. A failure is logged, without the URL.
    pub async fn post(&self, reached: &SoftBudget) {
        let document = Arc::new(document(reached));
        for attempt in 1..=Self::TRIES {
            let (agent, url, body) = (self.agent.clone(), self.url.clone(), Arc::clone(&document));
            let sent = tokio::task::spawn_blocking(move || {
                agent.post(url.expose()).content_type("application/json").send(body.as_bytes()).map(drop)
            });
            let why = match sent.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => kind_of(&error),
                Err(error) => error.to_string(),
            };
            tracing::warn!(attempt, account = %reached.account, "the webhook for soft budgets failed: {why}");
            if attempt < Self::TRIES {
                tokio::time::sleep(Duration::from_secs(u64::from(attempt))).await;
            }
        }
    }
}

/// What went wrong, without the URL that some errors repeat.
fn kind_of(error: &ureq::Error) -> String {
    match error {
        ureq::Error::StatusCode(status) => format!("it answered with status {status}"),
        ureq::Error::Timeout(_) => "it did not answer in time".to_owned(),
        ureq::Error::HostNotFound => "its host is not known".to_owned(),
        ureq::Error::ConnectionFailed => "it cannot be reached".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Tls(why) => format!("TLS: {why}"),
        _ => "the request could not be sent; is soft_budget_webhook_url a URL?".to_owned(),
    }
}

#[derive(serde::Serialize)]
struct Document<'a> {
    event: &'a str,
    scope: &'a str,
    id: &'a str,
    alias: Option<&'a str>,
    spent_usd: Option<Box<RawValue>>,
    soft_budget_usd: Option<Box<RawValue>>,
    account: &'a str,
    at_ms: u64,
}

fn document(reached: &SoftBudget) -> String {
    // Dollars as numbers without a float between.
    let number = |amount: NanoUsd| RawValue::from_string(amount.to_usd_number()).ok();
    let document = Document {
        event: "soft_budget_reached",
        scope: reached.scope.as_str(),
        id: &reached.id,
        alias: reached.alias.as_deref(),
        spent_usd: number(reached.spent),
        soft_budget_usd: number(reached.amount),
        account: reached.account.as_str(),
        at_ms: reached.at_ms,
    };
    serde_json::to_string(&document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Answers with these statuses, one connection each; returns the bodies.
    fn server(statuses: &'static [&'static str]) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?token=canary", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let one = |status: &&str| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if line == "\r\n" {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
                String::from_utf8(body).unwrap()
            };
            statuses.iter().map(one).collect()
        });
        (url, thread)
    }

    fn reached() -> SoftBudget {
        SoftBudget {
            scope: Scope::Key,
            account: AccountId::new("key/k/total"),
            id: "k".to_owned(),
            alias: Some("quoted \" alias".to_owned()),
            spent: NanoUsd(1_250_000_001),
            amount: NanoUsd(1_000_000_000),
            at_ms: 7,
        }
    }

    #[tokio::test]
    async fn a_webhook_is_tried_again_and_gets_exact_dollars() {
        let (url, server) = server(&["500 Oops", "204 No Content"]);
        Webhook::new(Secret::new(url)).post(&reached()).await;
        let bodies = server.join().unwrap();
        assert_eq!(bodies.len(), 2);
        assert_eq!(
            bodies[1],
            r#"{"event":"soft_budget_reached","scope":"key","id":"k","alias":"quoted \" alias","spent_usd":1.250000001,"soft_budget_usd":1,"account":"key/k/total","at_ms":7}"#
        );
    }

    #[test]
    fn neither_debug_nor_errors_show_the_url() {
        let webhook = Webhook::new(Secret::new("http://hooks.test/canary"));
        assert!(!format!("{webhook:?}").contains("canary"));
        let error = ureq::Error::BadUri("http://hooks.test/canary".to_owned());
        assert!(!kind_of(&error).contains("canary"));
    }

    #[test]
    fn ids_are_read_out_of_account_names() {
        for (account, id) in
            [("key/a%2Fb%25/total", "a/b%"), ("team/t%zz/30d/1", "t%zz"), ("odd", ""), ("tag/ü%C3%BC%2/x", "üü%2")]
        {
            assert_eq!(id_of(&AccountId::new(account)), id);
        }
    }
}
