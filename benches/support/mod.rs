//! The pieces of work that are measured, by the clock in `benches/timing` and by the instruction in
//! `benches/instructions`: what the proxy does for every request, each alone and without the network.

mod answers;
mod keys;
pub mod money;
mod requests;
mod settings;

/// Something to repeat, with everything it needs made before.
pub struct Case {
    pub work: Box<dyn FnMut()>,
    /// What one repetition reads, where throughput means something.
    pub bytes: Option<usize>,
}

impl Case {
    fn new(work: impl FnMut() + 'static) -> Self {
        Self { work: Box::new(work), bytes: None }
    }

    fn reading(self, bytes: usize) -> Self {
        Self { bytes: Some(bytes), ..self }
    }
}

/// Makes a case ready.
pub type Make = fn() -> Case;

/// Every case: its name (the group before the slash), how it is made ready, and how often it is repeated under callgrind.
/// Zero: only by the clock.
pub const CASES: &[(&str, Make, usize)] = &[
    ("sign/converse_1_kb", || requests::sign(1_000), 500),
    ("sign/converse_200_kb", || requests::sign(200_000), 10),
    ("route/converse", || requests::route("POST", "/bedrock/model/us.amazon.nova-pro-v1%3A0/converse", None), 2_000),
    ("route/model_arn", || requests::route("POST", requests::ARN_PATH, None), 2_000),
    ("route/control_plane", || requests::route("GET", requests::GUARDRAIL_PATH, None), 2_000),
    ("route/json_protocol", || requests::route("POST", "/", Some(requests::TARGET)), 2_000),
    ("authenticate/10_keys", || keys::authenticate(10), 1_000),
    ("authenticate/1000_keys", || keys::authenticate(1_000), 1_000),
    // They would take callgrind minutes to make.
    ("authenticate/100000_keys", || keys::authenticate(100_000), 0),
    ("money/reserve_settle_embedded", money::reserve_and_settle, 1_000),
    ("decode/1_mb_of_events", || answers::decode(1_000_000), 10),
    ("usage/converse_2_kb", answers::converse, 1_000),
    ("usage/anthropic_invoke_2_kb", answers::anthropic, 1_000),
    ("usage/stream_of_100_events", || answers::stream(100), 100),
    ("record/write", answers::record, 1_000),
    ("config/demo", settings::demo, 20),
    ("config/1000_deployments", || settings::deployments(1_000), 3),
];
