//! The bill: one row per generation whose first byte left, priced when it is written. AWS bills what was generated, so a
//! client that goes away during an answer pays for all of it; one that went away before its first byte, or got an error
//! status, pays nothing. What AWS does about either is not published; rules may demand that calls are billed on arrival,
//! or streams by what was delivered (`behaviour::Billing`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use serde::Serialize;

use crate::prices::{Call, ImageTerms, PriceBook};
use crate::usage::Usage;

/// What an answer is to be billed as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bill {
    /// The model id or ARN; `None` where the operation names none.
    pub model: Option<String>,
    pub usage: Usage,
    /// The tier the response states; `default` where it states none.
    pub tier: Option<String>,
    pub image: Option<ImageTerms>,
    pub mantle: bool,
}

impl Bill {
    /// The bill of a stream of which `sent` bytes of `of` left: output in proportion, rounded up, and all input.
    #[must_use]
    pub fn of_stream(mut self, sent: u64, of: u64) -> Self {
        let share = u128::from(self.usage.output) * u128::from(sent.min(of));
        let output = u64::try_from(share.div_ceil(u128::from(of.max(1)))).unwrap_or(u64::MAX);
        self.usage.output = output;
        self
    }
}

/// One row of the bill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    pub request_id: String,
    pub operation: &'static str,
    pub model: Option<String>,
    pub region: String,
    pub usage: Usage,
    pub tier: String,
    /// `None` where the price file has no price for it.
    pub cost_nano_usd: Option<u64>,
}

/// The totals.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Billed {
    pub total_nano_usd: u64,
    pub count: u64,
    pub unpriced: u64,
    /// Nano-dollars by model id as requested.
    pub by_model: BTreeMap<String, u64>,
}

#[derive(Default)]
struct State {
    billed: Billed,
    rows: VecDeque<Row>,
    /// Rows that were dropped before the first of `rows`.
    dropped: u64,
}

/// Prices calls and remembers them.
pub struct Ledger {
    prices: Option<PriceBook>,
    /// Rows kept for inspection; totals cover all.
    rows_max: usize,
    state: Mutex<State>,
}

impl Ledger {
    pub fn new(prices: Option<PriceBook>, rows_max: usize) -> Self {
        Self { prices, rows_max, state: Mutex::default() }
    }

    pub fn book(&self, request_id: String, operation: &'static str, region: String, bill: Bill) {
        let tier = bill.tier.unwrap_or_else(|| "default".to_owned());
        let cost_nano_usd = self.prices.as_ref().and_then(|prices| {
            let model = bill.model.as_deref().unwrap_or_default();
            let (image, mantle, usage) = (bill.image, bill.mantle, &bill.usage);
            prices.cost(&Call { model, region: &region, mantle, tier: &tier, image, usage })
        });
        let row = Row { request_id, operation, model: bill.model, region, usage: bill.usage, tier, cost_nano_usd };
        let Ok(mut state) = self.state.lock() else { return };
        state.billed.count += 1;
        match cost_nano_usd {
            Some(cost) => {
                state.billed.total_nano_usd = state.billed.total_nano_usd.saturating_add(cost);
                let model = row.model.as_deref().unwrap_or("-");
                if let Some(sum) = state.billed.by_model.get_mut(model) {
                    *sum = sum.saturating_add(cost);
                } else {
                    state.billed.by_model.insert(model.to_owned(), cost);
                }
            }
            None => state.billed.unpriced += 1,
        }
        state.rows.push_back(row);
        while state.rows.len() > self.rows_max {
            state.rows.pop_front();
            state.dropped += 1;
        }
    }

    pub fn billed(&self) -> Billed {
        self.state.lock().map(|state| state.billed.clone()).unwrap_or_default()
    }

    /// The newest rows, oldest first.
    pub fn rows(&self, last: usize) -> Vec<Row> {
        let Ok(state) = self.state.lock() else { return Vec::new() };
        state.rows.iter().skip(state.rows.len().saturating_sub(last)).cloned().collect()
    }

    /// Up to `limit` rows, from number `from` on; the first row ever is number 0. Rows that were dropped are left out.
    pub fn rows_from(&self, from: u64, limit: usize) -> Vec<Row> {
        let Ok(state) = self.state.lock() else { return Vec::new() };
        let skip = usize::try_from(from.saturating_sub(state.dropped)).unwrap_or(usize::MAX);
        state.rows.iter().skip(skip).take(limit).cloned().collect()
    }

    pub fn clear(&self) {
        if let Ok(mut state) = self.state.lock() {
            *state = State::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_billed_in_proportion_rounded_up() {
        let bill = Bill { usage: Usage { input: 7, output: 10, ..Usage::default() }, ..Bill::default() };
        for (sent, of, output) in [(3, 3, 10), (1, 3, 4), (0, 3, 0), (5, 3, 10), (1, 0, 0)] {
            let part = bill.clone().of_stream(sent, of).usage;
            assert_eq!((part.input, part.output), (7, output), "{sent} of {of}");
        }
    }

    #[test]
    fn the_newest_rows_are_kept_and_keep_their_numbers() {
        let ledger = Ledger::new(None, 3);
        for number in 0..5 {
            ledger.book(number.to_string(), "Converse", String::new(), Bill::default());
        }
        let ids = |rows: Vec<Row>| rows.into_iter().map(|row| row.request_id).collect::<Vec<_>>();
        assert_eq!(ids(ledger.rows(usize::MAX)), ["2", "3", "4"]);
        assert_eq!(ids(ledger.rows_from(0, 2)), ["2", "3"]);
        assert_eq!(ids(ledger.rows_from(4, 9)), ["4"]);
        assert_eq!(ids(ledger.rows_from(5, 9)), [""; 0]);
        assert_eq!(ledger.billed().count, 5);
    }
}
