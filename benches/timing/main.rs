//! How long the pieces of a request take: `make bench`, or `make bench ARGS=usage` for some. criterion compares with the
//! last run; the figures of one machine say nothing about another.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot go on has failed")]

#[path = "../../tests/store/redis_server.rs"]
#[expect(dead_code, reason = "the tests of the store do more with it")]
mod redis_server;
#[path = "../support/mod.rs"]
mod support;

mod stores;

use std::time::Duration;

use criterion::{Criterion, Throughput};
use support::CASES;

/// The one of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    for (name, make, _) in CASES {
        let (group, name) = name.split_once('/').unwrap();
        let mut group = criterion.benchmark_group(group);
        let mut case = make();
        if let Some(bytes) = case.bytes {
            group.throughput(Throughput::Bytes(bytes as u64));
        }
        group.bench_function(name, |bencher| bencher.iter(&mut case.work));
        group.finish();
    }
    stores::measure(&mut criterion);
    criterion.final_summary();
}
