//! A seeded simulation of routing: virtual time, deployments that fail, throttle, slow down and heal, and requests that
//! go through exactly the types the proxy uses. Whatever happens, the rules in `run.rs` hold.
//!
//! `SIMULATION_RUNS=100000` makes more runs than the default, `SIMULATION_SEED=<seed>` repeats the one that a failure
//! names and prints every event of it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "for whoever repeats a run")]

mod run;
mod shares;
mod world;

const RUNS: u64 = 10_000;

#[expect(clippy::disallowed_methods, reason = "how tests are told what to do")]
fn told(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

#[test]
fn whatever_happens_the_rules_of_routing_hold() {
    if let Some(seed) = told("SIMULATION_SEED") {
        let done = run::run(seed, true).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        println!("seed {seed}: {done:?}");
        return;
    }
    let runs = told("SIMULATION_RUNS").unwrap_or(RUNS);
    let halves = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|half| scope.spawn(move || part(half, runs))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let total = halves.into_iter().fold(run::Done::default(), run::Done::plus);
    println!("{runs} runs: {total:?}");
    // What never came to pass was not tried.
    for (what, count) in total.counts() {
        assert!(count > runs / 100, "{what} came to pass only {count} times in {runs} runs");
    }
}

/// Every second seed.
fn part(half: u64, runs: u64) -> run::Done {
    let mut total = run::Done::default();
    for seed in (half..runs).step_by(2) {
        match run::run(seed, false) {
            Ok(done) => total = total.plus(done),
            Err(broken) => panic!(
                "seed {seed}: {broken}\nrepeat it with: SIMULATION_SEED={seed} cargo test --test simulation -- --nocapture"
            ),
        }
    }
    total
}
