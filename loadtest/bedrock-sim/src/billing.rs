//! The bill: one row per generation whose first byte left, priced when it is written. AWS bills what was generated, so a
//! client that goes away pays for the full answer; an error status costs nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use serde::Serialize;

use crate::prices::{Call, ImageTerms, PriceBook};
use crate::usage::Usage;

/// Rows kept for inspection; totals cover all.
const ROWS_MAX: usize = 100_000;

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
}

/// Prices calls and remembers them.
pub struct Ledger {
    prices: Option<PriceBook>,
    state: Mutex<State>,
}

impl Ledger {
    pub fn new(prices: Option<PriceBook>) -> Self {
        Self { prices, state: Mutex::default() }
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
        if state.rows.len() >= ROWS_MAX {
            state.rows.pop_front();
        }
        state.rows.push_back(row);
    }

    pub fn billed(&self) -> Billed {
        self.state.lock().map(|state| state.billed.clone()).unwrap_or_default()
    }

    /// The newest rows, oldest first.
    pub fn rows(&self, last: usize) -> Vec<Row> {
        let Ok(state) = self.state.lock() else { return Vec::new() };
        state.rows.iter().skip(state.rows.len().saturating_sub(last)).cloned().collect()
    }

    pub fn clear(&self) {
        if let Ok(mut state) = self.state.lock() {
            *state = State::default();
        }
    }
}
