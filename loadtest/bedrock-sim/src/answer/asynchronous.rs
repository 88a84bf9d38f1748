//! StartAsyncInvoke and its reads. AWS reports no usage for these; a video is billed when it is started, by the duration
//! that the request asks for (Nova Reel 6 s, Luma Ray 5 s where it does not say). Every job is complete at once.

use serde_json::{Value, json};

use super::{Answer, Answered, Ask};
use crate::billing::Bill;
use crate::text::mix;
use crate::usage::Usage;

const SUBMITTED: &str = "2026-11-22T00:00:00Z";

pub fn start(ask: &Ask<'_>) -> Answered {
    let id = mix(ask.seed, ask.body);
    let arn = format!("arn:aws:bedrock:{}:123456789012:async-invoke/{:012x}", ask.region, id & 0xffff_ffff_ffff);
    let input = ask.json.get("modelInput").unwrap_or(&Value::Null);
    let model = ask.model.unwrap_or_default();
    let video_output_ms = if model.contains("reel") {
        let seconds = input.pointer("/videoGenerationConfig/durationSeconds").and_then(Value::as_u64);
        seconds.unwrap_or(6).saturating_mul(1000)
    } else if model.contains("luma") {
        let seconds =
            input.get("duration").and_then(Value::as_str).and_then(|text| text.trim_end_matches('s').parse().ok());
        seconds.unwrap_or(5_u64).saturating_mul(1000)
    } else {
        0
    };
    let usage = Usage { video_output_ms, ..Usage::default() }.overridden(&ask.effect.usage.unwrap_or_default());
    let bill = Bill { model: ask.billed_model(), usage, ..Bill::default() };
    (Answer::json(200, &json!({ "invocationArn": arn })), Some(bill))
}

pub fn get(ask: &Ask<'_>) -> Answer {
    Answer::json(200, &job(ask, &ask.label(0)))
}

pub fn list(ask: &Ask<'_>) -> Answer {
    let arn = format!("arn:aws:bedrock:{}:123456789012:async-invoke/000000000001", ask.region);
    Answer::json(200, &json!({ "asyncInvokeSummaries": [job(ask, &arn)] }))
}

fn job(ask: &Ask<'_>, arn: &str) -> Value {
    json!({
        "invocationArn": arn,
        "modelArn": format!("arn:aws:bedrock:{}::foundation-model/amazon.nova-reel-v1:0", ask.region),
        "status": "Completed",
        "submitTime": SUBMITTED,
        "lastModifiedTime": SUBMITTED,
        "endTime": SUBMITTED,
        "outputDataConfig": { "s3OutputDataConfig": { "s3Uri": "s3://simulated/output" } },
    })
}
