//! How many requests were answered at the same time, at most: in all, by model and by access key. A request counts from
//! when it was found authentic until the last piece of its answer is handed to the connection, or nobody waits for it any
//! more; so a client that sends its next request after an answer's end is never counted twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::Serialize;

/// The highest numbers since the start or the last clearing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct MaxConcurrent {
    pub all: u64,
    pub by_model: BTreeMap<String, u64>,
    pub by_access_key: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Level {
    now: u64,
    max: u64,
}

#[derive(Debug, Default)]
struct Levels {
    all: Level,
    by_model: BTreeMap<String, Level>,
    by_access_key: BTreeMap<String, Level>,
}

/// Counts requests.
#[derive(Debug, Clone, Default)]
pub struct Concurrency(Arc<Mutex<Levels>>);

/// A request that is being answered; it ends when this goes.
#[derive(Debug)]
pub struct InFlight {
    levels: Concurrency,
    model: String,
    access_key: String,
}

impl Level {
    fn begin(&mut self) {
        self.now += 1;
        self.max = self.max.max(self.now);
    }

    fn end(&mut self) {
        self.now = self.now.saturating_sub(1);
    }
}

impl Levels {
    fn each(&mut self, model: &str, access_key: &str, act: fn(&mut Level)) {
        act(&mut self.all);
        for (levels, name) in [(&mut self.by_model, model), (&mut self.by_access_key, access_key)] {
            if let Some(level) = levels.get_mut(name) {
                act(level);
            } else {
                act(levels.entry(name.to_owned()).or_default());
            }
        }
    }
}

impl Concurrency {
    /// Counts a request.
    pub fn begin(&self, model: &str, access_key: &str) -> InFlight {
        if let Ok(mut levels) = self.0.lock() {
            levels.each(model, access_key, Level::begin);
        }
        InFlight { levels: self.clone(), model: model.to_owned(), access_key: access_key.to_owned() }
    }

    pub fn max(&self) -> MaxConcurrent {
        let Ok(levels) = self.0.lock() else { return MaxConcurrent::default() };
        let of = |levels: &BTreeMap<String, Level>| {
            levels.iter().map(|(name, level)| (name.clone(), level.max)).collect::<BTreeMap<_, _>>()
        };
        MaxConcurrent { all: levels.all.max, by_model: of(&levels.by_model), by_access_key: of(&levels.by_access_key) }
    }

    /// Forgets the highest numbers; what is being answered now still counts.
    pub fn clear(&self) {
        let Ok(mut levels) = self.0.lock() else { return };
        levels.all.max = levels.all.now;
        let Levels { by_model, by_access_key, .. } = &mut *levels;
        for levels in [by_model, by_access_key] {
            levels.retain(|_, level| level.now > 0);
            for level in levels.values_mut() {
                level.max = level.now;
            }
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Ok(mut levels) = self.levels.0.lock() {
            levels.each(&self.model, &self.access_key, Level::end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_level_stays_until_it_is_cleared() {
        let concurrency = Concurrency::default();
        let first = concurrency.begin("nova", "AKID");
        drop(concurrency.begin("nova", "AKID"));
        let other = concurrency.begin("claude", "AKID");
        let max = concurrency.max();
        assert_eq!((max.all, max.by_model["nova"], max.by_model["claude"], max.by_access_key["AKID"]), (2, 2, 1, 2));
        drop(first);
        concurrency.clear();
        let max = concurrency.max();
        assert_eq!((max.all, max.by_model.len(), max.by_model["claude"]), (1, 1, 1));
        drop(other);
        concurrency.clear();
        assert_eq!(concurrency.max(), MaxConcurrent::default());
    }
}
