//! The program against the simulator's canned mode.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use bedrock_sim::{Canned, Serving};
use serde_json::Value;

/// Runs the program on `path` of the simulator and gives its report.
async fn measure(serving: &Serving, path: &str, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stream-load"));
    command.arg("--url").arg(format!("{}{path}", serving.url())).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

const STREAM: &str = "/model/amazon.nova-pro-v1%3A0/converse-stream";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn paced_streams_are_timed_frame_by_frame() {
    let serving = Canned { frames: 10, frame_rate_hz: 100, ..Canned::default() }.start().unwrap();
    let report = measure(&serving, STREAM, &["--streams", "20", "--ramp-ms", "50"]).await;
    assert_eq!((&report["finished"], &report["frames"]), (&20.into(), &280.into()), "{report}");
    assert_eq!(report["frames_checked"], 20, "{report}");
    assert_eq!(report["errors"], serde_json::json!({}), "{report}");
    assert_eq!(report["transit_us"]["count"], 200, "{report}");
    assert_eq!(report["gap_us"]["count"], 180, "{report}");
    assert!(report["stream_us"]["min"].as_f64().unwrap() >= 90_000.0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_burst_opens_one_stream_after_the_other() {
    let serving = Canned { frames: 5, ..Canned::default() }.start().unwrap();
    let report = measure(&serving, STREAM, &["--streams", "2", "--burst", "--seconds", "1"]).await;
    assert!(report["finished"].as_u64().unwrap() > 10, "{report}");
    assert_eq!(report["errors"], serde_json::json!({}), "{report}");
    assert_eq!(report["transit_us"]["count"], 0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn held_streams_are_left_in_the_end() {
    let serving = Canned { frames: 100_000, frame_rate_hz: 10, ..Canned::default() }.start().unwrap();
    let report = measure(&serving, STREAM, &["--streams", "5", "--hold-s", "1"]).await;
    assert_eq!((&report["finished"], &report["open_at_the_end"]), (&0.into(), &5.into()), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn failures_are_counted_by_their_kind() {
    let serving = Canned::default().start().unwrap();
    let report = measure(&serving, "/elsewhere", &["--streams", "3"]).await;
    assert_eq!(report["errors"], serde_json::json!({ "status 404": 3 }), "{report}");
}
