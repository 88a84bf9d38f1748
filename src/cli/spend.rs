//! `dheera_ai spend`: what was spent, summed by day, key, model and so on, from a running proxy.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Client, Failure, read};
use super::fields::{Fields, horizontal};

const HELP: &str = "\
Examples:
  dheera_ai spend                                      this month, day by day
  dheera_ai spend --by key                             who spent most this month
  dheera_ai spend --by model --from 2026-11-01 --to 2026-11-30
  dheera_ai spend --by tag --csv > tags.csv

Days are days of UTC. What applies to a call is summed: a call with two tags counts in both, one without a team in none.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct SpendArgs {
    /// What to sum by
    #[arg(long, value_enum, default_value_t = By::Day)]
    by: By,
    /// First day, as 2026-11-01 [default: the first of the month]
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// Last day, as 2026-11-30 [default: today]
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    /// Lines at most, the dearest first
    #[arg(long, value_name = "COUNT")]
    limit: Option<u32>,
    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    Day,
    Key,
    Model,
    Team,
    User,
    Customer,
    Tag,
}

impl By {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Key => "key",
            Self::Model => "model",
            Self::Team => "team",
            Self::User => "user",
            Self::Customer => "customer",
            Self::Tag => "tag",
        }
    }
}

#[derive(Deserialize)]
struct Report<'a> {
    data: Vec<Fields>,
    start_date: String,
    end_date: String,
    #[serde(borrow)]
    total_spend: &'a RawValue,
    #[serde(default)]
    left_off: u64,
}

pub(super) fn run(arguments: &SpendArgs, client: &Client, raw: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let limit = arguments.limit.map(|limit| limit.to_string());
    let mut query = vec![("group_by", arguments.by.as_str())];
    query.extend(arguments.from.as_deref().map(|day| ("start_date", day)));
    query.extend(arguments.to.as_deref().map(|day| ("end_date", day)));
    query.extend(limit.as_deref().map(|limit| ("limit", limit)));
    let accept = if arguments.csv { "text/csv" } else { "application/json" };
    let answer = client.get("/global/spend/report", &query, accept)?;
    if raw || arguments.csv {
        return Ok(writeln!(out, "{}", answer.trim_end())?);
    }
    let report: Report<'_> = read(&answer)?;
    // All lines have the same members; the first tells their order.
    let columns: Vec<&str> = report.data.first().into_iter().flat_map(Fields::names).collect();
    if !report.data.is_empty() {
        out.write_all(horizontal(&report.data, columns).as_bytes())?;
    }
    if report.left_off > 0 {
        writeln!(out, "{} more lines, see --limit", report.left_off)?;
    }
    let Report { start_date, end_date, total_spend, .. } = report;
    Ok(writeln!(out, "Spent from {start_date} to {end_date}: ${}", total_spend.get())?)
}
