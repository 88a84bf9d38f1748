use proptest::prelude::*;

use super::*;
use crate::price::book::{PriceBook, Query, Surface};
use crate::types::tokens::Tokens;
use crate::types::usage::{GuardrailUnits, Latency, Tier};

fn price(model_id: &str, region: &str) -> Price {
    let query = Query { model_id, region, surface: Surface::Runtime, base_model: None, invoked_model: None };
    PriceBook::bundled().find(&query).unwrap_or_else(|| panic!("{model_id} is not listed")).clone()
}

fn bill(model_id: &str, usage: &Usage, terms: &Terms) -> Result<u64, Unpriced> {
    cost(&price(model_id, "us-east-1"), usage, terms).map(|cost| cost.0)
}

fn tier(tier: Tier) -> Terms {
    Terms { tier, ..Terms::default() }
}

fn chat(input: u64, output: u64) -> Usage {
    Usage { input: Tokens(input), output: Tokens(output), ..Usage::default() }
}

/// 1000 in, 200 out, 2000 read from the cache, 400 written for five minutes and 600 for an hour.
fn cached() -> Usage {
    Usage { cache_read: Tokens(2000), cache_write_5m: Tokens(400), cache_write_1h: Tokens(600), ..chat(1000, 200) }
}

#[test]
fn calls_of_every_family_cost_what_was_computed_by_hand() {
    let sonnet = "anthropic.claude-sonnet-4-5-20250929-v1:0";
    for (model_id, usage, terms, expected) in [
        // 1000×3.3 + 200×16.5 + 2000×0.33 + 400×4.125 + 600×6.6 = 12,870 millionths of a dollar.
        (format!("us.{sonnet}"), cached(), Tier::Default, 12_870_000),
        (format!("jp.{sonnet}"), cached(), Tier::Default, 12_870_000),
        // 1000×3 + 200×15 + 2000×0.3 + 400×3.75 + 600×6
        (format!("global.{sonnet}"), cached(), Tier::Default, 11_700_000),
        (sonnet.to_owned(), cached(), Tier::Default, 11_700_000),
        // 1000×3.6 + 200×18 + 2000×0.36 + 400×4.5 + 600×7.2
        (format!("us-gov.{sonnet}"), cached(), Tier::Default, 14_040_000),
        // No premium on cache writes: 2000×0.8 + 200×3.2 + 2000×0.2
        ("amazon.nova-pro-v1:0".to_owned(), cached(), Tier::Default, 2_640_000),
        // 2000×0.4 + 200×1.6 + 2000×0.1
        ("amazon.nova-pro-v1:0".to_owned(), cached(), Tier::Flex, 1_320_000),
        // 2000×1.4 + 200×5.6 + 2000×0.35
        ("amazon.nova-pro-v1:0".to_owned(), cached(), Tier::Priority, 4_620_000),
        // Batch lists input and output; cached tokens cost what they do by default: 2000×0.4 + 200×1.6 + 2000×0.2
        ("amazon.nova-pro-v1:0".to_owned(), cached(), Tier::Batch, 1_520_000),
        // Reserved capacity counts at the default rates.
        ("amazon.nova-pro-v1:0".to_owned(), cached(), Tier::Reserved, 2_640_000),
        // 1000×11 + 200×55, six times that on the fast tier.
        ("us.openai.gpt-6-astra".to_owned(), chat(1000, 200), Tier::Default, 22_000_000),
        ("us.openai.gpt-6-astra".to_owned(), chat(1000, 200), Tier::Ultrafast, 132_000_000),
        // A tier that a model does not have is its default.
        (sonnet.to_owned(), chat(1000, 200), Tier::Priority, 6_000_000),
        // 3 tokens at 35 nano-dollars; one from the cache at 8.75, rounded up.
        ("amazon.nova-micro-v1:0".to_owned(), chat(3, 0), Tier::Default, 105),
        ("amazon.nova-micro-v1:0".to_owned(), Usage { cache_read: Tokens(1), ..Usage::default() }, Tier::Default, 9),
        ("amazon.titan-embed-text-v2:0".to_owned(), chat(1000, 0), Tier::Default, 20_000),
        ("cohere.rerank-v3-5:0".to_owned(), Usage { queries: 3, ..Usage::default() }, Tier::Default, 6_000_000),
        ("meta.llama3-70b-instruct-v1:0".to_owned(), chat(1000, 200), Tier::Default, 3_350_000),
    ] {
        assert_eq!(bill(&model_id, &usage, &tier(terms)), Ok(expected), "{model_id} {terms:?}");
    }
}

#[test]
fn a_region_with_a_price_of_its_own_is_billed_at_it() {
    let mumbai = price("meta.llama3-70b-instruct-v1:0", "ap-south-1");
    // 1000×3.18 + 200×4.2
    assert_eq!(cost(&mumbai, &chat(1000, 200), &Terms::default()), Ok(NanoUsd(4_020_000)));
}

#[test]
fn a_long_prompt_is_dearer_from_the_first_token_above_the_threshold() {
    let sonnet = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
    let terms = Terms::default();
    assert_eq!(bill(sonnet, &chat(200_000, 100), &terms), Ok(661_650_000));
    // 200,001×6.6 + 100×24.75
    assert_eq!(bill(sonnet, &chat(200_001, 100), &terms), Ok(1_322_481_600));
    // Cached tokens count: 1 input above 199,000 read and 1,000 written.
    let usage = Usage { cache_read: Tokens(199_000), cache_write_1h: Tokens(1000), ..chat(1, 0) };
    assert_eq!(bill(sonnet, &usage, &terms), Ok(6_600 + 199_000 * 660 + 1000 * 13_200));
    assert_eq!(
        bill("us.openai.gpt-6-astra", &chat(272_001, 1), &tier(Tier::Ultrafast)),
        Ok(272_001 * 132_000 + 495_000)
    );
    assert_eq!(
        bill("us.openai.gpt-6-astra", &chat(272_000, 1), &tier(Tier::Ultrafast)),
        Ok(272_000 * 66_000 + 330_000)
    );
}

#[test]
fn an_hours_cache_write_costs_twice_the_input_where_only_the_short_one_is_listed() {
    let usage = Usage { cache_write_5m: Tokens(1000), cache_write_1h: Tokens(1000), ..Usage::default() };
    let haiku = "anthropic.claude-haiku-4-5-20251001-v1:0";
    // The apac entry lists 1.375 for five minutes and nothing for an hour; us lists 2.2, twice its input of 1.1.
    let apac = bill(&format!("apac.{haiku}"), &usage, &Terms::default());
    assert_eq!(apac, Ok(1_375_000 + 2_200_000));
    assert_eq!(bill(&format!("us.{haiku}"), &usage, &Terms::default()), apac);
}

#[test]
fn all_listed_cache_writes_keep_the_ratio_that_the_unlisted_ones_are_priced_by() {
    let text = include_str!("../../../conf/prices.yaml");
    let models = text.lines().filter_map(|line| line.strip_prefix("  - model: "));
    let mut checked = 0;
    for model in models.filter(|model| *model != "guardrail") {
        let query = |surface| Query { model_id: model, region: "", surface, base_model: None, invoked_model: None };
        let book = PriceBook::bundled();
        let Some(price) = book.find(&query(Surface::Runtime)) else { continue };
        let rate = |dimension| price.listed(dimension, 0, None).map(|rate| rate.0);
        if let (Some(input), Some(hour)) = (rate(Dimension::Input), rate(Dimension::CacheWrite1h)) {
            assert_eq!(hour, 2 * input, "{model}");
            checked += 1;
        }
    }
    assert!(checked > 100);
}

#[test]
fn the_latency_mode_is_billed_by_its_own_rate_where_the_book_has_one() {
    let book = PriceBook::from_yaml(
        "version: 1\nprices:
  - { model: a.b, per_million: { input: \"1\" }, tiers: { optimized: { input: \"1.25\" } } }",
    )
    .unwrap();
    let query = Query { model_id: "a.b", region: "", surface: Surface::Runtime, base_model: None, invoked_model: None };
    let price = book.find(&query).unwrap();
    let fast = Terms { latency: Latency::Optimized, ..Terms::default() };
    assert_eq!(cost(price, &chat(1000, 0), &fast), Ok(NanoUsd(1_250_000)));
    assert_eq!(cost(price, &chat(1000, 0), &Terms::default()), Ok(NanoUsd(1_000_000)));
    assert_eq!(bill("amazon.nova-pro-v1:0", &chat(1000, 0), &fast), Ok(800_000));
}

#[test]
fn an_image_costs_what_the_smallest_variant_that_covers_it_does() {
    let image = |width_px, height_px, steps, premium| Some(ImageTerms { width_px, height_px, steps, premium });
    for (model_id, image, expected) in [
        ("stability.stable-diffusion-xl-v1", image(1024, 1024, Some(50), false), 40_000_000),
        ("stability.stable-diffusion-xl-v1", image(1536, 640, Some(30), false), 40_000_000),
        ("stability.stable-diffusion-xl-v1", image(1024, 1024, Some(51), false), 80_000_000),
        ("stability.stable-diffusion-xl-v1", image(1024, 1025, Some(50), false), 80_000_000),
        ("stability.stable-diffusion-xl-v1", image(0, 0, None, false), 80_000_000),
        ("stability.stable-diffusion-xl-v1", None, 80_000_000),
        ("stability.stable-diffusion-xl-v0", image(512, 512, None, false), 18_000_000),
        ("stability.stable-diffusion-xl-v0", image(512, 512, Some(51), false), 36_000_000),
        ("stability.stable-diffusion-xl-v0", image(513, 512, Some(50), false), 36_000_000),
        ("stability.stable-diffusion-xl-v0", image(513, 512, Some(51), false), 72_000_000),
        ("amazon.nova-canvas-v1:0", image(2048, 2048, None, true), 60_000_000),
        ("stability.stable-image-ultra-v1:1", None, 140_000_000),
    ] {
        let usage = Usage { images_out: 2, images_in: 1, ..chat(50, 3) };
        let terms = Terms { image: image.clone(), ..Terms::default() };
        assert_eq!(bill(model_id, &usage, &terms), Ok(2 * expected), "{model_id} {image:?}");
    }
}

#[test]
fn premium_images_never_take_the_standard_price() {
    let book = PriceBook::from_yaml(
        "version: 1\nprices:
  - { model: a.b, image: { size: 9x9, quality: standard }, per_unit: { image_out: \"1\" } }
  - { model: a.b, image: { size: 9x9, quality: premium }, per_unit: { image_out: \"2\" } }
  - { model: a.b, image: { size: max, quality: premium }, per_unit: { image_out: \"4\" } }",
    )
    .unwrap();
    let query = Query { model_id: "a.b", region: "", surface: Surface::Runtime, base_model: None, invoked_model: None };
    let price = book.find(&query).unwrap();
    for (side, premium, dollars) in [(9, false, 1), (9, true, 2), (10, true, 4), (10, false, 4)] {
        let image = Some(ImageTerms { width_px: side, height_px: side, steps: None, premium });
        let paid = cost(price, &Usage { images_out: 1, ..Usage::default() }, &Terms { image, ..Terms::default() });
        assert_eq!(paid, Ok(NanoUsd(dollars * 1_000_000_000)), "{side} {premium}");
    }
}

#[test]
fn sound_and_pictures_are_billed_to_the_millisecond() {
    let embed = "amazon.nova-2-multimodal-embeddings-v1:0";
    let usage = Usage { video_input_ms: 1500, audio_input_ms: 1, ..Usage::default() };
    // 1.5 s × 0.0007 + 0.001 s × 0.00014
    assert_eq!(bill(embed, &usage, &Terms::default()), Ok(1_050_000 + 140));
    // Prompt tokens of a video model are not billed beside the seconds; its answer is.
    let usage = Usage { video_input_ms: 10_000, ..chat(500, 100) };
    assert_eq!(bill("us.twelvelabs.pegasus-1-2-v1:0", &usage, &Terms::default()), Ok(4_900_000 + 750_000));
}

#[test]
fn tokens_of_an_image_are_billed_once() {
    let tokens = Usage { image_input: Tokens(1000), ..Usage::default() };
    let titan = "amazon.titan-embed-image-v1";
    assert_eq!(bill(titan, &tokens, &Terms::default()), Ok(800_000));
    assert_eq!(bill(titan, &Usage { images_in: 1, ..tokens }, &Terms::default()), Ok(60_000));
}

#[test]
fn guardrails_are_billed_beside_the_model() {
    let guardrail = GuardrailUnits {
        topic: 2,
        content: 1,
        content_image: 1,
        word: 9,
        sensitive_information: 1,
        sensitive_information_free: 9,
        contextual_grounding: 1,
        automated_reasoning: 1,
    };
    // 2×0.00015 + 0.00015 + 0.00075 + 0 + 0.0001 + 0 + 0.0001 + 0.00017
    let expected = 1_570_000;
    let alone = Usage { guardrail, ..Usage::default() };
    assert_eq!(cost(&PriceBook::bundled().guardrail(), &alone, &Terms::default()), Ok(NanoUsd(expected)));
    let with_model = Usage { guardrail, ..chat(1000, 200) };
    assert_eq!(bill("amazon.nova-pro-v1:0", &with_model, &Terms::default()), Ok(expected + 1_440_000));
}

#[test]
fn what_is_used_and_not_listed_is_unpriced_rather_than_free() {
    let nova = "amazon.nova-pro-v1:0";
    for (model_id, usage, dimension) in [
        (nova, Usage { audio_input: Tokens(1), ..Usage::default() }, Dimension::AudioInput),
        (nova, Usage { audio_output: Tokens(1), ..Usage::default() }, Dimension::AudioOutput),
        (nova, Usage { images_out: 1, ..Usage::default() }, Dimension::ImageOut),
        (nova, Usage { images_in: 1, ..Usage::default() }, Dimension::ImageIn),
        (nova, Usage { video_output_ms: 1, ..Usage::default() }, Dimension::VideoOutputSecond),
        (nova, Usage { queries: 1, ..Usage::default() }, Dimension::Query),
        // Billed by the second of video; tokens without seconds mean that the length is not known.
        ("twelvelabs.pegasus-1-2-v1:0", chat(1, 0), Dimension::Input),
    ] {
        assert_eq!(bill(model_id, &usage, &Terms::default()), Err(Unpriced { dimension }), "{model_id}");
    }
    assert_eq!(cost(&Price::default(), &chat(0, 1), &Terms::default()), Err(Unpriced { dimension: Dimension::Output }));
    assert_eq!(cost(&Price::default(), &Usage::default(), &Terms::default()), Ok(NanoUsd::ZERO));
}

#[test]
fn the_sum_is_rounded_and_not_its_parts() {
    // 8.75 + 35 nano-dollars are 43.75; three times 8.75 are 26.25 and not three times 9.
    let usage = Usage { cache_read: Tokens(1), ..chat(1, 0) };
    assert_eq!(bill("amazon.nova-micro-v1:0", &usage, &Terms::default()), Ok(44));
    let usage = Usage { cache_read: Tokens(3), ..chat(0, 0) };
    assert_eq!(bill("amazon.nova-micro-v1:0", &usage, &Terms::default()), Ok(27));
}

#[test]
fn absurd_quantities_saturate() {
    let most = Tokens(u64::MAX);
    let usage = Usage {
        input: most,
        output: most,
        cache_read: most,
        cache_write_5m: most,
        cache_write_1h: most,
        ..Usage::default()
    };
    assert_eq!(bill("us.anthropic.claude-sonnet-4-5-20250929-v1:0", &usage, &Terms::default()), Ok(u64::MAX));
    let usage = Usage { images_out: u64::MAX, ..Usage::default() };
    assert_eq!(bill("stability.sd3-5-large-v1:0", &usage, &Terms::default()), Ok(u64::MAX));
    let dear = PriceBook::from_yaml(
        "version: 1\nprices: [{ model: a.b, per_million: { input: \"18000000000\", output: \"18000000000\" } }]",
    )
    .unwrap();
    let query = Query { model_id: "a.b", region: "", surface: Surface::Runtime, base_model: None, invoked_model: None };
    assert_eq!(cost(dear.find(&query).unwrap(), &chat(u64::MAX, u64::MAX), &Terms::default()), Ok(NanoUsd(u64::MAX)));
}

fn usage_of_everything(count: u64) -> Usage {
    Usage {
        images_in: count,
        images_out: count,
        video_input_ms: count,
        audio_input_ms: count,
        queries: count,
        audio_input: Tokens(count),
        audio_output: Tokens(count),
        ..chat(count, count)
    }
}

prop_compose! {
    fn some_usage()(
        tokens in prop::array::uniform7(0u64..600_000),
        pieces in prop::array::uniform3(0u64..100_000),
    ) -> Usage {
        let [input, output, cache_read, cache_write_5m, cache_write_1h, audio_input, audio_output] = tokens.map(Tokens);
        let [video_input_ms, audio_input_ms, queries] = pieces;
        Usage {
            input, output, cache_read, cache_write_5m, cache_write_1h, audio_input, audio_output,
            video_input_ms, audio_input_ms, queries, ..Usage::default()
        }
    }
}

/// Lists everything, so that any usage has a price; longer prompts are dearer.
fn full_price() -> Price {
    let mut price = price("us.openai.gpt-6-astra", "us-east-1");
    let set = crate::price::book::PriceOverride::from_fields(&[
        ("input_cost_per_audio_token", "0.0000037"),
        ("output_cost_per_audio_token", "0.0000123"),
        ("input_cost_per_video_per_second", "0.000000000000007"),
        ("input_cost_per_audio_per_second", "0.00014"),
        ("input_cost_per_query", "0.002"),
    ])
    .unwrap();
    set.apply(&mut price);
    price
}

proptest! {
    #[test]
    fn using_more_never_costs_less(less in some_usage(), more in some_usage(), ultrafast: bool) {
        let price = full_price();
        let terms = tier(if ultrafast { Tier::Ultrafast } else { Tier::Default });
        let before = cost(&price, &less, &terms).unwrap();
        let grown = [
            Usage { input: less.input + more.input, ..less },
            Usage { output: less.output + more.output, ..less },
            Usage { cache_read: less.cache_read + more.cache_read, ..less },
            Usage { cache_write_5m: less.cache_write_5m + more.cache_write_5m, ..less },
            Usage { cache_write_1h: less.cache_write_1h + more.cache_write_1h, ..less },
            Usage { audio_input: less.audio_input + more.audio_input, ..less },
            Usage { audio_output: less.audio_output + more.audio_output, ..less },
            Usage { video_input_ms: less.video_input_ms + more.video_input_ms, ..less },
            Usage { audio_input_ms: less.audio_input_ms + more.audio_input_ms, ..less },
            Usage { queries: less.queries + more.queries, ..less },
        ];
        for usage in grown {
            prop_assert!(cost(&price, &usage, &terms).unwrap() >= before, "{usage:?}");
        }
    }

    #[test]
    fn a_cost_is_the_exact_sum_rounded_up(tokens in prop::array::uniform3(0u64..50_000), ms in 0u64..10_000_000) {
        let [input, output, cache_read] = tokens;
        let usage = Usage { cache_read: Tokens(cache_read), video_input_ms: ms, ..chat(input, output) };
        // 11, 55 and 1.1 dollars a million tokens are 11,000, 55,000 and 1,100 nano-dollars each; a second of this
        // video is seven millionths of one.
        let tokens = u128::from(input * 11_000 + output * 55_000 + cache_read * 1_100);
        let exact = tokens * 1_000_000_000 + u128::from(ms) * 7;
        let expected = u64::try_from(exact.div_ceil(1_000_000_000)).unwrap();
        prop_assert_eq!(cost(&full_price(), &usage, &Terms::default()), Ok(NanoUsd(expected)));
    }

    #[test]
    fn no_quantity_makes_it_panic(count: u64, model in prop::sample::select(vec![
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "amazon.titan-embed-image-v1", "us.openai.gpt-6-astra",
        "twelvelabs.marengo-embed-3-0-v1:0", "stability.stable-diffusion-xl-v1", "amazon.nova-2-sonic-v1:0",
    ])) {
        let paid = bill(model, &usage_of_everything(count), &Terms::default());
        prop_assert_eq!(paid.is_ok(), count == 0, "no model lists everything: {:?}", paid);
    }
}
