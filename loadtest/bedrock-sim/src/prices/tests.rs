use super::*;

const SONNET: &str = "anthropic.claude-sonnet-4-5-20250929-v1:0";

fn book() -> PriceBook {
    PriceBook::from_yaml(include_str!("../../tests/fixtures/prices.yaml")).unwrap()
}

fn call<'a>(model: &'a str, usage: &'a Usage) -> Call<'a> {
    Call { model, region: "us-west-2", mantle: false, tier: "default", image: None, usage }
}

fn mixed() -> Usage {
    Usage { input: 1000, output: 200, cache_read: 2000, cache_write_5m: 400, cache_write_1h: 600, ..Usage::default() }
}

#[test]
fn a_call_with_everything_costs_what_the_hand_calculation_says() {
    // 1000×3.3 + 200×16.5 + 2000×0.33 + 400×4.125 + 600×6.6 = 12,870 micro-dollars.
    assert_eq!(book().cost(&call(&format!("us.{SONNET}"), &mixed())), Some(12_870_000));
    assert_eq!(book().cost(&call(SONNET, &mixed())), Some(11_700_000));
    let usage = mixed();
    let gov = Call { region: "us-gov-west-1", ..call(SONNET, &usage) };
    assert_eq!(book().cost(&gov), Some(14_040_000));
}

#[test]
fn an_unlisted_geography_costs_what_the_bare_id_costs() {
    assert_eq!(book().cost(&call(&format!("jp.{SONNET}"), &mixed())), Some(11_700_000));
    let arn = format!("arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{SONNET}");
    assert_eq!(book().cost(&call(&arn, &mixed())), Some(12_870_000));
    let foundation = format!("arn:aws:bedrock:us-east-1::foundation-model/{SONNET}");
    assert_eq!(book().cost(&call(&foundation, &mixed())), Some(11_700_000));
    assert_eq!(book().cost(&call("arn:aws:bedrock:us-east-1:1:application-inference-profile/x", &mixed())), None);
}

#[test]
fn the_long_context_rate_begins_one_token_above_its_threshold() {
    let at = Usage { input: 150_000, cache_read: 50_000, output: 10, ..Usage::default() };
    assert_eq!(book().cost(&call(SONNET, &at)), Some(150_000 * 3000 + 50_000 * 300 + 10 * 15_000));
    let above = Usage { input: 150_001, ..at };
    assert_eq!(book().cost(&call(SONNET, &above)), Some(150_001 * 6000 + 50_000 * 600 + 10 * 22_500));
}

#[test]
fn tiers_override_rate_by_rate() {
    let usage = Usage { input: 1000, output: 575, cache_read: 100, ..Usage::default() };
    for (tier, nano_usd) in [
        ("default", 1000 * 800 + 575 * 3200 + 100 * 200),
        ("flex", 1000 * 400 + 575 * 1600 + 100 * 200),
        ("priority", 1000 * 1400 + 575 * 5600 + 100 * 200),
        ("reserved", 1000 * 800 + 575 * 3200 + 100 * 200),
    ] {
        let tiered = Call { tier, ..call("amazon.nova-pro-v1:0", &usage) };
        assert_eq!(book().cost(&tiered), Some(nano_usd), "{tier}");
    }
}

#[test]
fn fractions_round_up_once() {
    // 0.000001 dollars per million tokens: a million tokens cost 1,000 nano-dollars, one token a thousandth of one.
    for (input, nano_usd) in [(1, 1), (999, 1), (1000, 1), (1001, 2), (1_000_000, 1000)] {
        assert_eq!(
            book().cost(&call("amazon.tiny-v1", &Usage { input, ..Usage::default() })),
            Some(nano_usd),
            "{input}"
        );
    }
}

#[test]
fn what_has_no_rate_is_unpriced_not_free() {
    let usage = Usage { input: 1, output: 1, ..Usage::default() };
    assert_eq!(book().cost(&call("amazon.tiny-v1", &usage)), None);
    assert_eq!(book().cost(&call("unknown.model", &usage)), None);
}

#[test]
fn cache_rates_that_are_not_listed_follow_the_head_of_the_file() {
    let usage = Usage { cache_read: 10, cache_write_5m: 100, cache_write_1h: 1000, ..Usage::default() };
    let nova = 10 * 200 + 100 * 800 + 1000 * 800;
    assert_eq!(book().cost(&call("amazon.nova-pro-v1:0", &usage)), Some(nova));
}

#[test]
fn the_shipped_price_file_is_read_and_agrees_with_hand_calculations() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conf/prices.yaml");
    let shipped = PriceBook::from_yaml(&std::fs::read_to_string(path).unwrap()).unwrap();
    let sonnet = |prefix: &str| shipped.cost(&call(&format!("{prefix}{SONNET}"), &mixed()));
    let (us, global, jp) = (sonnet("us."), sonnet("global."), sonnet("jp."));
    assert_eq!((us, global, jp), (Some(12_870_000), Some(11_700_000), Some(12_870_000)));
    let guardrail = Usage { guardrail: GuardrailUnits::of_text(1), ..Usage::default() };
    assert_eq!(shipped.cost(&call("", &guardrail)), Some(150_000 + 150_000 + 100_000));
}

#[test]
fn images_are_priced_by_size_and_steps() {
    let usage = Usage { images_out: 3, ..Usage::default() };
    for (steps, nano_usd) in [(30, 120_000_000), (50, 120_000_000), (51, 240_000_000)] {
        let image = Some(ImageTerms { width_px: 1024, height_px: 1024, steps, premium: false });
        let priced = Call { image, ..call("stability.stable-diffusion-xl-v1", &usage) };
        assert_eq!(book().cost(&priced), Some(nano_usd), "{steps}");
    }
}

#[test]
fn queries_seconds_guardrails_and_mantle_are_priced() {
    let queries = Usage { queries: 2, ..Usage::default() };
    assert_eq!(book().cost(&call("cohere.rerank-v3-5:0", &queries)), Some(4_000_000));
    let video = Usage { input: 5000, output: 100, video_input_ms: 1500, ..Usage::default() };
    assert_eq!(book().cost(&call("twelvelabs.pegasus-1-2-v1:0", &video)), Some(750_000 + 735_000));
    let guardrail = Usage { guardrail: GuardrailUnits::of_text(2500), ..Usage::default() };
    assert_eq!(book().cost(&call("", &guardrail)), Some(3 * (150_000 + 150_000 + 100_000)));
    let tokens = Usage { input: 1000, output: 1000, ..Usage::default() };
    let mantle = Call { mantle: true, ..call("openai.gpt-oss-120b", &tokens) };
    assert_eq!(book().cost(&mantle), Some(750_000));
    assert_eq!(book().cost(&Call { mantle: false, ..mantle }), None);
    let nova = Call { mantle: true, ..call("amazon.nova-pro-v1:0", &tokens) };
    assert_eq!(book().cost(&nova), Some(4_000_000));
}

#[test]
fn hostile_quantities_and_figures_do_not_overflow() {
    let huge = Usage { input: u64::MAX, cache_read: u64::MAX, ..Usage::default() };
    assert_eq!(book().cost(&call(SONNET, &huge)), None);
    for bad in ["", ".", "-1", "1e3", "1.2.3", "0.1234567890123456789012", "999999999999999999999999999999"] {
        assert_eq!(amount(bad, 21), None, "{bad}");
    }
}
