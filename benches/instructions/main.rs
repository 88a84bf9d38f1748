//! Runs one case of `benches/support` for callgrind, which counts the instructions of [`counted`] and what it calls:
//! `make bench-check`. By hand: `instructions NAME`; without
//! arguments it tells what there is.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "the names are what was asked for")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "only the clock asks for throughput")]
mod support;

use support::CASES;

/// The one of the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Until caches, tables and buffers are as in a process that has served for a while.
const WARM_UP: usize = 100;

fn main() {
    // Cargo adds `--bench` of its own.
    match std::env::args().skip(1).find(|argument| argument != "--bench") {
        Some(name) => run(&name),
        None => list(),
    }
}

/// What can be counted, and how often each is repeated.
fn list() {
    for (name, _, count) in CASES.iter().filter(|(_, _, count)| *count > 0) {
        println!("{name} {count}");
    }
}

fn run(name: &str) {
    let found = CASES.iter().find(|(known, _, _)| *known == name);
    let (_, make, count) = found.unwrap_or_else(|| panic!("there is no case {name}"));
    let mut case = make();
    for _ in 0..WARM_UP.min(*count) {
        (case.work)();
    }
    counted(&mut case.work, *count);
}

/// callgrind collects from its beginning to its end, on the thread that runs it.
#[inline(never)]
fn counted(work: &mut dyn FnMut(), count: usize) {
    for _ in 0..count {
        work();
    }
}
