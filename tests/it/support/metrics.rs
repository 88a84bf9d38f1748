//! Reads Prometheus text: series by name and labels.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Vec<(String, BTreeMap<String, String>, String)>);

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Self(lines.map(parse_line).collect())
    }

    /// The sum of a counter over all series that have these labels, exact.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let fits = |own: &BTreeMap<String, String>| {
            labels.iter().all(|(name, value)| own.get(*name).is_some_and(|own| own == value))
        };
        let series = self.0.iter().filter(|(own, series, _)| own == name && fits(series));
        series
            .map(|(_, _, value)| value.parse::<u64>().unwrap_or_else(|_| panic!("{name} is no whole number: {value}")))
            .sum()
    }

    /// The values of one label, whatever the series say.
    pub fn names(&self, name: &str, label: &str) -> BTreeSet<String> {
        self.0.iter().filter(|(own, ..)| own == name).map(|(_, labels, _)| labels[label].clone()).collect()
    }

    /// Sums by the value of one label; empty sums are left out.
    pub fn sums_by(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for (_, labels, value) in self.0.iter().filter(|(own, ..)| own == name) {
            *sums.entry(labels[label].clone()).or_default() += value.parse::<u64>().unwrap();
        }
        sums.retain(|_, sum| *sum > 0);
        sums
    }
}

fn parse_line(line: &str) -> (String, BTreeMap<String, String>, String) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once("=\"").unwrap();
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    });
    (name.to_owned(), labels.collect(), value.to_owned())
}
