//! Sums over days: in all, or by day, key, team, user, customer, tag or model.
//!
//! Only what applies to a call is summed: calls without a team are in no line of the teams, and a call with two tags is
//! in two lines. `total_spend` is always the sum of everything in the range.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;

use super::page::Group;
use super::range::Days;
use super::table::{self, Cell, Form, Line};
use super::{Asked, Refusal, Spend};
use crate::admin::request::Answer;
use crate::budget::entry::{Dimension, Rollup};
use crate::store::{Kind, StoreError};

const LINES: usize = 1000;
const LINES_MAX: usize = 10_000;
/// Names asked of the store at the same time.
const LOOKUPS_AT_ONCE: usize = 16;

/// What a report shows of a record.
#[derive(Deserialize)]
struct Named {
    alias: Option<String>,
}

/// A sum of rollups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    nano_usd: i128,
    requests: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Sum {
    fn add(&mut self, rollup: &Rollup) {
        self.nano_usd = self.nano_usd.saturating_add(i128::from(rollup.cost_nano_usd));
        self.requests = self.requests.saturating_add(rollup.requests);
        self.prompt_tokens = self.prompt_tokens.saturating_add(rollup.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(rollup.completion_tokens);
    }

    fn cells(&self) -> Line {
        vec![
            ("spend", Cell::Amount(self.nano_usd)),
            ("requests", Cell::Count(self.requests)),
            ("total_tokens", Cell::Count(self.prompt_tokens.saturating_add(self.completion_tokens))),
            ("prompt_tokens", Cell::Count(self.prompt_tokens)),
            ("completion_tokens", Cell::Count(self.completion_tokens)),
        ]
    }
}

/// What `group_by` says; days where it is not given, as LiteLLM's reports are.
pub(super) fn group_by(asked: &Asked) -> Result<Group, Refusal> {
    let Some(word) = asked.get("group_by") else { return Ok(Group::Day) };
    Group::ALL.into_iter().find(|group| group.as_str() == word).ok_or_else(|| {
        let known = Group::ALL.map(Group::as_str).join(", ");
        Refusal::Invalid(format!("`group_by` must be one of {known}."))
    })
}

impl Spend {
    /// `/global/spend`.
    pub(super) async fn total(&self, asked: &Asked, form: Form, now_ms: u64) -> Result<Answer, Refusal> {
        let days = Days::asked_or_month(asked, now_ms)?;
        let mut line = self.sums(days, Group::Day).await?.0.cells();
        line.extend([
            ("start_date", Cell::Text(days.first.to_string())),
            ("end_date", Cell::Text(days.last.to_string())),
        ]);
        match form {
            Form::Json => {
                let mut body = String::new();
                table::push_object(&line, &mut body);
                Ok(Answer::of(200, "application/json", body.into_bytes()))
            }
            Form::Csv => {
                let columns: Vec<&str> = line.iter().map(|(name, _)| *name).collect();
                table::csv("spend", &columns, &[line])
            }
        }
    }

    /// Sums by `group`: days in their order, everything else by what was spent, most first.
    pub(super) async fn report(&self, group: Group, asked: &Asked, form: Form, now_ms: u64) -> Result<Answer, Refusal> {
        let days = Days::asked_or_month(asked, now_ms)?;
        let lines_max = asked.count("limit", LINES, LINES_MAX)?;
        let (everything, sums) = self.sums(days, group).await?;
        // A reset of a key's spend is an entry of no model, user or team that costs nothing.
        let says_something = |(id, sum): &(String, Sum)| !id.is_empty() || *sum != Sum::default();
        let mut sums: Vec<(String, Sum)> = sums.into_iter().filter(says_something).collect();
        if group != Group::Day {
            sums.sort_by(|(id, a), (other, b)| b.nano_usd.cmp(&a.nano_usd).then_with(|| id.cmp(other)));
        }
        let left_off = sums.len().saturating_sub(lines_max);
        sums.truncate(lines_max);
        let lines = self.lines(group, &sums).await?;
        match form {
            Form::Json => {
                let more = vec![
                    ("group_by", Cell::text(group.as_str())),
                    ("start_date", Cell::Text(days.first.to_string())),
                    ("end_date", Cell::Text(days.last.to_string())),
                    ("total_spend", Cell::Amount(everything.nano_usd)),
                    ("left_off", Cell::Count(u64::try_from(left_off).unwrap_or(u64::MAX))),
                ];
                Ok(table::json(&lines, &more))
            }
            Form::Csv => {
                let columns: Vec<&str> =
                    line(group, "", None, &Sum::default()).into_iter().map(|(name, _)| name).collect();
                let mut answer = table::csv(&format!("spend-by-{}", group.as_str()), &columns, &lines)?;
                if left_off > 0 {
                    answer.headers.push(("x-dheera-ai-left-off", left_off.to_string()));
                }
                Ok(answer)
            }
        }
    }

    /// The sum of everything, and sums by `group`.
    async fn sums(&self, days: Days, group: Group) -> Result<(Sum, BTreeMap<String, Sum>), Refusal> {
        let rollups = self.ledger.rollups(&days.first.to_string(), &days.last.to_string()).await?;
        let mut everything = Sum::default();
        let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
        for rollup in &rollups {
            // Every entry counts once on a key (or on none, with an empty id), and only there for certain.
            let of_everything = rollup.of.dimension == Dimension::Key;
            if of_everything {
                everything.add(rollup);
            }
            let name = match group {
                Group::Day if of_everything => &rollup.day,
                Group::Model if of_everything => &rollup.of.model,
                Group::Of(dimension) if rollup.of.dimension == dimension => &rollup.of.id,
                _ => continue,
            };
            if let Some(sum) = sums.get_mut(name) {
                sum.add(rollup);
            } else {
                sums.entry(name.clone()).or_default().add(rollup);
            }
        }
        Ok((everything, sums))
    }

    async fn lines(&self, group: Group, sums: &[(String, Sum)]) -> Result<Vec<Line>, StoreError> {
        // Made here and not as they are polled: a closure over borrowed lines is not known to be `Send`.
        let lines: Vec<_> = sums.iter().map(|(id, sum)| self.line(group, id, sum)).collect();
        stream::iter(lines).buffered(LOOKUPS_AT_ONCE).try_collect().await
    }

    async fn line(&self, group: Group, id: &str, sum: &Sum) -> Result<Line, StoreError> {
        let alias = match group.alias() {
            Some((_, kind)) => self.alias(kind, id).await?,
            None => None,
        };
        Ok(line(group, id, alias.as_deref(), sum))
    }

    /// The name of what is deleted, or has none, is not known.
    async fn alias(&self, kind: Kind, id: &str) -> Result<Option<String>, StoreError> {
        if id.is_empty() {
            return Ok(None);
        }
        let document = self.directory.get(kind, id).await?;
        Ok(document.and_then(|document| serde_json::from_str::<Named>(&document.json).ok()?.alias))
    }
}

fn line(group: Group, id: &str, alias: Option<&str>, sum: &Sum) -> Line {
    let mut line = vec![(group.member(), Cell::text(id))];
    line.extend(group.alias().map(|(member, _)| (member, Cell::maybe(alias))));
    line.extend(sum.cells());
    line
}
