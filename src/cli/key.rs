//! `dheera_ai key …`: makes, shows, changes and deletes virtual keys of a running proxy.
//!
//! Which values are allowed is the proxy's to say; here only their form is checked, so that money is sent as it was
//! written. A secret never stands in a URL, where it would be logged: its digest does, which the proxy knows it by.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest as _, Sha256};

use super::client::{Client, Failure, read};
use super::fields::{Fields, horizontal};
use crate::types::money::NanoUsd;

const CREATE_HELP: &str = "\
Examples:
  KEY=$(dheera_ai key create --alias ci --max-budget 10 --budget-duration 30d)
  dheera_ai key create --alias app --models my-claude-model,nova-* --rpm 60 --max-parallel 4 --team research
  dheera_ai key create --alias trial --max-budget 0.50 --duration 7d
  dheera_ai key create --set 'model_max_budget={\"nova\":{\"max_budget\":1,\"budget_duration\":\"1d\"}}'

  dheera_ai key create --alias signer --sigv4    # and a key pair that signs requests

The key alone is written to stdout, everything else to stderr. It is shown this once: the proxy keeps only its digest.";

const UPDATE_HELP: &str = "\
Examples:
  dheera_ai key update ci --max-budget 25
  dheera_ai key update ci --clear max_budget,rpm_limit

What is not named stays as it is.";

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key; prints it alone on stdout
    #[command(after_help = CREATE_HELP)]
    Create {
        #[command(flatten)]
        fields: KeyFields,
    },
    /// List keys
    List {
        /// Keys of this team only
        #[arg(long, value_name = "ID")]
        team: Option<String>,
        /// Keys of this user only
        #[arg(long, value_name = "ID")]
        user: Option<String>,
        /// Which page
        #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        page: u32,
        /// Keys on a page
        #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
        size: u32,
    },
    /// Show a key: its limits and what it has spent
    Show {
        #[command(flatten)]
        key: Named,
    },
    /// Change a key
    #[command(after_help = UPDATE_HELP)]
    Update {
        #[command(flatten)]
        key: Named,
        #[command(flatten)]
        fields: KeyFields,
        /// Fields to take back, by the API's names: max_budget,rpm_limit,models …
        #[arg(long, value_name = "FIELDS", value_delimiter = ',', value_parser = field_name)]
        clear: Vec<String>,
    },
    /// Refuse every call of a key until it is unblocked
    Block {
        #[command(flatten)]
        key: Named,
    },
    /// Serve a blocked key again
    Unblock {
        #[command(flatten)]
        key: Named,
    },
    /// Delete keys; what they spent stays in the spend log
    Delete {
        /// Keys by id, alias, digest or the key itself
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
    },
    /// Replace the secret of a key, which keeps its id, limits and spend; prints the new one alone on stdout
    Regenerate {
        #[command(flatten)]
        key: Named,
        /// How long the old secret stays valid, as 24h [default: not at all]
        #[arg(long, value_name = "PERIOD")]
        grace_period: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// A key by its id, alias, digest or the key itself; others on this machine can see the arguments of a command
    #[arg(value_name = "KEY")]
    key: String,
}

/// What may be set; each is a field of the API.
#[derive(Debug, Args)]
pub(super) struct KeyFields {
    /// Name of the key, unique
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// Model names and globs it may call, separated by commas [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    models: Option<Vec<String>>,
    /// US dollars it may spend
    #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
    max_budget: Option<NanoUsd>,
    /// US dollars at which it is warned of
    #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
    soft_budget: Option<NanoUsd>,
    /// In which time the budget may be spent: 24h, 7d, 30d, 1mo [default: for ever]
    #[arg(long, value_name = "PERIOD")]
    budget_duration: Option<String>,
    /// How long the key is valid: 24h, 30d; -1 for ever [default: for ever]
    #[arg(long, value_name = "PERIOD", allow_hyphen_values = true)]
    duration: Option<String>,
    /// Requests per minute
    #[arg(long, value_name = "COUNT")]
    rpm: Option<u64>,
    /// Tokens per minute
    #[arg(long, value_name = "COUNT")]
    tpm: Option<u64>,
    /// Requests in flight at once
    #[arg(long, value_name = "COUNT")]
    max_parallel: Option<u64>,
    /// Team it belongs to, whose limits hold too
    #[arg(long, value_name = "ID")]
    team: Option<String>,
    /// User it belongs to, whose limits hold too
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Budget whose limits hold where the key has none
    #[arg(long, value_name = "ID")]
    budget: Option<String>,
    /// Tags of each of its calls, separated by commas
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    tags: Option<Vec<String>>,
    /// Operations and globs it may call: Converse*,InvokeModel
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    operations: Option<Vec<String>>,
    /// AWS regions it may reach, separated by commas
    #[arg(long, value_name = "REGIONS", value_delimiter = ',')]
    regions: Option<Vec<String>>,
    /// With a key pair that signs requests, so that no secret is sent: an access key id and a secret for AWS SDKs
    #[arg(long)]
    sigv4: bool,
    /// Notes of your own, a JSON object
    #[arg(long, value_name = "JSON", value_parser = json)]
    metadata: Option<Json>,
    /// Any other field of the API, its value in JSON; may be repeated
    #[arg(long = "set", value_name = "FIELD=JSON", value_parser = assignment)]
    others: Vec<(String, Json)>,
}

/// JSON as it was written.
#[derive(Debug, Clone)]
struct Json(Box<RawValue>);

fn json(text: &str) -> Result<Json, String> {
    RawValue::from_string(text.to_owned()).map(Json).map_err(|_| "is not JSON; texts stand in double quotes".to_owned())
}

fn assignment(text: &str) -> Result<(String, Json), String> {
    let (name, value) = text.split_once('=').ok_or("write FIELD=JSON, such as blocked=true")?;
    Ok((field_name(name)?, json(value)?))
}

fn field_name(text: &str) -> Result<String, String> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if plain { Ok(text.to_owned()) } else { Err("is not the name of a field, such as max_budget".to_owned()) }
}

fn dollars(text: &str) -> Result<NanoUsd, String> {
    NanoUsd::from_usd(text).map_err(|_| "write US dollars with at most nine decimals, such as 10 or 0.25".to_owned())
}

/// The members of a request.
type Members = BTreeMap<String, Box<RawValue>>;

fn member(members: &mut Members, name: &str, value: impl serde::Serialize) -> Result<(), Failure> {
    let value = to_raw_value(&value).map_err(|error| Failure::Impossible(error.to_string()))?;
    members.insert(name.to_owned(), value);
    Ok(())
}

fn body(members: &Members) -> Result<String, Failure> {
    serde_json::to_string(members).map_err(|error| Failure::Impossible(error.to_string()))
}

impl KeyFields {
    fn members(self) -> Result<Members, Failure> {
        let mut members = Members::new();
        let texts = [
            ("key_alias", self.alias),
            ("budget_duration", self.budget_duration),
            ("duration", self.duration),
            ("team_id", self.team),
            ("user_id", self.user),
            ("budget_id", self.budget),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                member(&mut members, name, value)?;
            }
        }
        let lists = [
            ("models", self.models),
            ("tags", self.tags),
            ("allowed_operations", self.operations),
            ("allowed_regions", self.regions),
        ];
        for (name, value) in lists {
            if let Some(value) = value {
                member(&mut members, name, value)?;
            }
        }
        let counts = [("rpm_limit", self.rpm), ("tpm_limit", self.tpm), ("max_parallel_requests", self.max_parallel)];
        for (name, value) in counts {
            if let Some(value) = value {
                member(&mut members, name, value)?;
            }
        }
        if self.sigv4 {
            member(&mut members, "sigv4", true)?;
        }
        for (name, value) in [("max_budget", self.max_budget), ("soft_budget", self.soft_budget)] {
            if let Some(value) = value {
                // As a number with all its decimals, which a float might not keep.
                let number = RawValue::from_string(value.to_usd_number());
                members.insert(name.to_owned(), number.map_err(|error| Failure::Impossible(error.to_string()))?);
            }
        }
        for (name, Json(value)) in
            self.metadata.map(|value| ("metadata".to_owned(), value)).into_iter().chain(self.others)
        {
            if members.insert(name.clone(), value).is_some() {
                return Err(Failure::Impossible(format!("`{name}` is given twice: keep one of the options")));
            }
        }
        Ok(members)
    }
}

/// The columns of a list, as far as any key has them.
const COLUMNS: [&str; 13] = [
    "key_id",
    "key_alias",
    "key_name",
    "status",
    "spend",
    "max_budget",
    "budget_duration",
    "budget_reset_at",
    "rpm_limit",
    "tpm_limit",
    "team_id",
    "user_id",
    "expires",
];

/// A page of keys.
#[derive(Deserialize)]
struct Listed {
    keys: Vec<Fields>,
    #[serde(default)]
    total_count: u64,
    #[serde(default)]
    total_pages: u64,
}

#[derive(Deserialize)]
struct Info {
    info: Fields,
}

/// A new key, or an old one with a new secret.
#[derive(Deserialize)]
struct Made {
    key: String,
    aws_access_key_id: Option<String>,
    /// There when the pair is new.
    aws_secret_access_key: Option<String>,
}

/// What an update says of a key pair that it has made.
#[derive(Deserialize)]
struct NewPair {
    aws_access_key_id: Option<String>,
    aws_secret_access_key: Option<String>,
}

pub(super) fn run(
    command: KeyCommand,
    client: &Client,
    raw: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    match command {
        KeyCommand::Create { fields } => {
            let answer = client.post("/key/generate", &body(&fields.members()?)?)?;
            made(&answer, raw, out, err)
        }
        KeyCommand::List { team, user, page, size } => {
            list(client, team.as_deref(), user.as_deref(), page, size, raw, out)
        }
        KeyCommand::Show { key } => {
            let (_, answer) = find(client, &key.key)?;
            if raw {
                return Ok(writeln!(out, "{}", answer.trim_end())?);
            }
            Ok(out.write_all(read::<Info>(&answer)?.info.vertical().as_bytes())?)
        }
        KeyCommand::Update { key, fields, clear } => {
            let mut members = fields.members()?;
            for name in clear {
                if members.contains_key(&name) {
                    return Err(Failure::Impossible(format!(
                        "`{name}` is both set and cleared: keep one of the options"
                    )));
                }
                member(&mut members, &name, ())?;
            }
            if members.is_empty() {
                return Err(Failure::Impossible("nothing is to be changed: name a field, see --help".to_owned()));
            }
            let answer = act(client, "/key/update", &key.key, members, raw.then_some(out), "is changed.", err)?;
            match read::<NewPair>(&answer)? {
                NewPair { aws_access_key_id: Some(id), aws_secret_access_key: Some(secret) } if !raw => {
                    pair(&id, &secret, err)
                }
                _ => Ok(()),
            }
        }
        KeyCommand::Block { key } => {
            act(client, "/key/block", &key.key, Members::new(), raw.then_some(out), "is blocked.", err).map(drop)
        }
        KeyCommand::Unblock { key } => {
            let done = "is not blocked any more.";
            act(client, "/key/unblock", &key.key, Members::new(), raw.then_some(out), done, err).map(drop)
        }
        KeyCommand::Delete { keys } => delete(client, &keys, raw, out, err),
        KeyCommand::Regenerate { key, grace_period } => {
            let mut members = Members::new();
            member(&mut members, "key", find(client, &key.key)?.0)?;
            if let Some(period) = grace_period {
                member(&mut members, "grace_period", period)?;
            }
            let answer = client.post("/key/regenerate", &body(&members)?)?;
            made(&answer, raw, out, err)
        }
    }
}

/// The secret alone on stdout, so that a script can take it; what a human wants to know on stderr.
fn made(answer: &str, raw: bool, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    if raw {
        return Ok(writeln!(out, "{}", answer.trim_end())?);
    }
    let Made { key, aws_access_key_id, aws_secret_access_key } = read(answer)?;
    let fields: Fields = read(answer)?;
    writeln!(out, "{key}")?;
    let named = |name: &str, label: &str| fields.get(name).map(|value| format!("{label} {value}"));
    let said: Vec<String> = [
        named("key_id", "id"),
        named("key_alias", "alias"),
        named("max_budget", "budget"),
        named("budget_duration", "every"),
        named("expires", "expires"),
    ]
    .into_iter()
    .flatten()
    .collect();
    writeln!(err, "{}. This key is shown only once: keep it.", said.join(", "))?;
    if let (Some(id), Some(secret)) = (aws_access_key_id, aws_secret_access_key) {
        pair(&id, &secret, err)?;
    }
    Ok(())
}

/// A new key pair, as a shell takes it.
fn pair(id: &str, secret: &str, err: &mut dyn Write) -> Result<(), Failure> {
    writeln!(err, "The key pair, whose secret is shown only once; an SDK that has it signs, and sends no secret:")?;
    writeln!(err, "export AWS_ACCESS_KEY_ID={id}")?;
    Ok(writeln!(err, "export AWS_SECRET_ACCESS_KEY={secret}")?)
}

fn list(
    client: &Client,
    team: Option<&str>,
    user: Option<&str>,
    page: u32,
    size: u32,
    raw: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let (page_text, size) = (page.to_string(), size.to_string());
    let mut query = vec![("page", page_text.as_str()), ("size", size.as_str()), ("return_full_object", "true")];
    query.extend(team.map(|id| ("team_id", id)));
    query.extend(user.map(|id| ("user_id", id)));
    let answer = client.get("/key/list", &query, "application/json")?;
    if raw {
        return Ok(writeln!(out, "{}", answer.trim_end())?);
    }
    let listed: Listed = read(&answer)?;
    if listed.keys.is_empty() {
        let what = if page > 1 {
            "There is no such page."
        } else {
            "There are no keys: make one with `dheera_ai key create`."
        };
        return Ok(writeln!(out, "{what}")?);
    }
    out.write_all(horizontal(&listed.keys, COLUMNS).as_bytes())?;
    if listed.total_pages > 1 {
        let (count, pages) = (listed.total_count, listed.total_pages);
        writeln!(out, "{count} keys; page {page} of {pages}, see --page")?;
    }
    Ok(())
}

fn act(
    client: &Client,
    path: &str,
    key: &str,
    mut members: Members,
    raw: Option<&mut dyn Write>,
    done: &str,
    err: &mut dyn Write,
) -> Result<String, Failure> {
    let (id, _) = find(client, key)?;
    member(&mut members, "key", &id)?;
    let answer = client.post(path, &body(&members)?)?;
    match raw {
        Some(out) => writeln!(out, "{}", answer.trim_end())?,
        None => writeln!(err, "{id} {done}")?,
    }
    Ok(answer)
}

fn delete(
    client: &Client,
    keys: &[String],
    raw: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let ids: Vec<String> = keys.iter().map(|key| find(client, key).map(|(id, _)| id)).collect::<Result<_, _>>()?;
    let mut members = Members::new();
    member(&mut members, "keys", &ids)?;
    let answer = client.post("/key/delete", &body(&members)?)?;
    if raw {
        return Ok(writeln!(out, "{}", answer.trim_end())?);
    }
    for id in ids {
        writeln!(err, "{id} is deleted.")?;
    }
    Ok(())
}

/// The id of a key and what is known of it, by id, digest, secret or else by alias.
fn find(client: &Client, key: &str) -> Result<(String, String), Failure> {
    let handle = if key.starts_with("sk-") { digest(key) } else { key.to_owned() };
    let refused = match info(client, &handle) {
        // Not the id of any key; 400 is what an alias gets that cannot be one.
        Err(Failure::Refused { status: 400 | 404, message }) => message,
        other => return other,
    };
    let query = [("key_alias", key), ("size", "100"), ("return_full_object", "true")];
    let answer = client.get("/key/list", &query, "application/json")?;
    let listed: Listed = read(&answer)?;
    let same = listed.keys.iter().find(|fields| fields.get("key_alias").as_deref() == Some(key));
    match same.and_then(|fields| fields.get("key_id").or_else(|| fields.get("token"))) {
        Some(id) => info(client, &id),
        None if key.starts_with("sk-") => Err(Failure::Impossible(format!("there is no such key ({refused})"))),
        None => {
            let what = "no key has this id or alias; `dheera_ai key list` shows those there are";
            Err(Failure::Impossible(format!("`{}`: {what}", key.escape_debug())))
        }
    }
}

fn info(client: &Client, handle: &str) -> Result<(String, String), Failure> {
    let answer = client.get("/key/info", &[("key", handle)], "application/json")?;
    let id = read::<Info>(&answer)?.info.get("key_id").unwrap_or_else(|| handle.to_owned());
    Ok((id, answer))
}

/// What the proxy knows a secret by.
fn digest(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}
