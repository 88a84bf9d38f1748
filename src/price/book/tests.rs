use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::price::cost::cost;
use crate::types::money::NanoUsd;
use crate::types::tokens::Tokens;
use crate::types::usage::{ImageTerms, Terms, Usage};

const HAIKU: &str = "anthropic.claude-haiku-4-5-20251001-v1:0";

fn ask<'a>(model_id: &'a str, region: &'a str) -> Query<'a> {
    Query { model_id, region, surface: Surface::Runtime, base_model: None, invoked_model: None }
}

/// The input rate, in nano-dollars per million tokens.
fn input(price: Option<&Price>) -> Option<u64> {
    price.and_then(|price| price.listed(Dimension::Input, 0, None)).map(|rate| rate.0)
}

fn book(entries: &str) -> Result<PriceBook, PriceBookError> {
    PriceBook::from_yaml(&format!("version: 1\ncollected: 2026-11-22\ncurrency: USD\nprices:\n{entries}"))
}

#[test]
fn the_bundled_book_holds_every_entry_of_its_file() {
    let text = include_str!("../../../conf/prices.yaml");
    let written = text.lines().filter(|line| line.starts_with("  - model: ")).count();
    let book = PriceBook::bundled();
    let listings = book.families.values().flatten();
    // A listing stands for its own entry, unless it has variants only, and for one entry each variant.
    let entries = |listing: &Listing| listing.price.images.len() + usize::from(!listing.price.is_variants_only());
    let read: usize = listings.map(entries).sum::<usize>() + book.commitments.len() + 1;
    assert_eq!((written, read), (588, 588));
    assert_eq!(book.commitments.len(), 28);
}

#[test]
fn every_listed_price_is_found_by_its_id_and_prices_something() {
    let book = PriceBook::bundled();
    for listing in book.families.values().flatten() {
        let region = listing.region.as_deref().unwrap_or("nowhere-1");
        let found = book.find(&Query { surface: listing.surface, ..ask(&listing.id, region) });
        assert_eq!(found, Some(&listing.price), "{} {region}", listing.id);
        let used = Dimension::ALL.into_iter().find_map(|dimension| {
            let usage = match dimension {
                Dimension::Input => Usage { input: Tokens(1000), ..Usage::default() },
                Dimension::ImageOut => Usage { images_out: 1, ..Usage::default() },
                Dimension::VideoInputSecond => Usage { video_input_ms: 1000, ..Usage::default() },
                Dimension::Query => Usage { queries: 1, ..Usage::default() },
                _ => return None,
            };
            cost(&listing.price, &usage, &Terms::default()).ok().filter(|cost| *cost > NanoUsd::ZERO)
        });
        assert!(used.is_some(), "{} costs nothing", listing.id);
    }
}

#[test]
fn limits_of_a_model_come_with_its_price() {
    let book = PriceBook::bundled();
    let price = book.find(&ask("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us-east-1")).unwrap();
    assert_eq!((price.max_input_tokens, price.max_output_tokens), (Some(200_000), Some(64_000)));
    assert_eq!(price.mode.as_deref(), Some("chat"));
}

#[test]
fn the_nearest_place_of_an_id_decides_its_price() {
    let book = PriceBook::bundled();
    for (model_id, region, expected) in [
        // Exact id with region, then exact id.
        (HAIKU, "us-gov-west-1", Some(1_200_000_000)),
        (HAIKU, "us-west-2", Some(1_000_000_000)),
        ("meta.llama3-70b-instruct-v1:0", "ap-south-1", Some(3_180_000_000)),
        ("meta.llama3-70b-instruct-v1:0", "eu-central-2", Some(2_650_000_000)),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "us-west-2", Some(1_100_000_000)),
        ("global.anthropic.claude-haiku-4-5-20251001-v1:0", "us-west-2", Some(1_000_000_000)),
        // Not listed with this prefix: the dearest sibling that may be called here.
        ("ca.anthropic.claude-haiku-4-5-20251001-v1:0", "ca-central-1", Some(1_100_000_000)),
        ("us-gov.anthropic.claude-haiku-4-5-20251001-v1:0", "us-gov-west-1", Some(1_200_000_000)),
        // Listed with a prefix only.
        ("openai.gpt-5.5", "us-east-1", Some(5_500_000_000)),
        // On mantle only, and not called there.
        ("openai.gpt-5.6-cyber", "us-east-1", None),
        ("anthropic.claude-99", "us-east-1", None),
        ("us.anthropic", "us-east-1", None),
        ("guardrail", "us-east-1", None),
        ("", "", None),
    ] {
        assert_eq!(input(book.find(&ask(model_id, region))), expected, "{model_id} in {region}");
    }
}

#[test]
fn mantle_has_prices_of_its_own_and_falls_back_to_the_runtimes() {
    let book = PriceBook::bundled();
    let mantle = |model_id, region| book.find(&Query { surface: Surface::Mantle, ..ask(model_id, region) });
    assert!(mantle("openai.gpt-5.6-cyber", "us-east-1").is_some());
    let gov = input(mantle("openai.gpt-oss-120b", "us-gov-west-1")).unwrap();
    assert!(gov > input(mantle("openai.gpt-oss-120b", "us-east-1")).unwrap());
    assert_eq!(input(mantle(HAIKU, "us-gov-west-1")), Some(1_200_000_000));
}

#[test]
fn an_arn_is_priced_by_the_id_it_names_and_the_region_it_names() {
    let book = PriceBook::bundled();
    let id = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
    let profile = format!("arn:aws:bedrock:us-east-1:123456789012:inference-profile/{id}");
    assert_eq!(input(book.find(&ask(&profile, "us-west-2"))), Some(3_300_000_000));
    let model = format!("arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/{HAIKU}");
    assert_eq!(input(book.find(&ask(&model, "us-east-1"))), Some(1_200_000_000));
}

#[test]
fn a_hidden_model_is_priced_by_its_base_model_or_not_at_all() {
    let book = PriceBook::bundled();
    for kind in ["application-inference-profile", "provisioned-model", "imported-model", "custom-model"] {
        let arn = format!("arn:aws:bedrock:us-east-1:123456789012:{kind}/a1b2c3");
        let query = ask(&arn, "us-east-1");
        assert_eq!(book.find(&query), None);
        let known = Query { base_model: Some("us.anthropic.claude-haiku-4-5-20251001-v1:0"), ..query };
        assert_eq!(input(book.find(&known)), Some(1_100_000_000));
        let unknown = Query { base_model: Some("nobody.nothing"), ..query };
        assert_eq!(book.find(&unknown), None);
    }
}

#[test]
fn a_base_model_goes_before_a_guess_but_not_before_a_listed_id() {
    let book = PriceBook::bundled();
    let base_model = Some("amazon.nova-pro-v1:0");
    assert_eq!(input(book.find(&Query { base_model, ..ask(HAIKU, "us-east-1") })), Some(1_000_000_000));
    let unlisted = Query { base_model, ..ask("ca.anthropic.claude-haiku-4-5-20251001-v1:0", "ca-central-1") };
    assert_eq!(input(book.find(&unlisted)), Some(800_000_000));
}

#[test]
fn a_prompt_router_is_priced_by_the_model_it_picked() {
    let book = PriceBook::bundled();
    let router = "arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/anthropic.claude:1";
    let picked = format!("arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{HAIKU}");
    let base_model = Some("amazon.nova-pro-v1:0");
    let query = Query { base_model, invoked_model: Some(&picked), ..ask(router, "us-east-1") };
    assert_eq!(input(book.find(&query)), Some(1_100_000_000));
    let unknown = Query { invoked_model: Some("nobody.nothing"), ..query };
    assert_eq!(input(book.find(&unknown)), Some(800_000_000));
}

#[test]
fn provisioned_throughput_is_never_the_price_of_a_call() {
    let book = PriceBook::bundled();
    let price = book.find(&ask("anthropic.claude-v1", "us-west-2")).unwrap();
    assert_eq!(price.listed(Dimension::ProvisionedSecond, 0, None), None);
    let term = |model, region, term| book.provisioned_unit_second(model, region, term).map(|rate| rate.0);
    assert_eq!(term("anthropic.claude-v1", "us-west-2", "6-month"), Some(9_720_000_000_000));
    assert_eq!(term("cohere.command-text-v14", "anywhere-1", "1-month"), Some(11_000_000_000_000));
    assert_eq!(term("anthropic.claude-v1", "sa-east-1", "1-month"), None);
}

#[test]
fn prices_of_a_deployment_win_over_the_book_field_by_field() {
    let book = PriceBook::bundled();
    let set = PriceOverride::from_fields(&[("input_cost_per_token", "2e-06")]).unwrap();
    let known = book.price(&ask(HAIKU, "us-east-1"), Some(&set)).unwrap();
    assert_eq!(input(Some(&known)), Some(2_000_000_000));
    assert_eq!(known.listed(Dimension::Output, 0, None).map(|rate| rate.0), Some(5_000_000_000));
    let unlisted = book.price(&ask("nobody.nothing", "us-east-1"), Some(&set)).unwrap();
    assert_eq!(unlisted.listed(Dimension::Output, 0, None), None);
    assert!(unlisted.listed(Dimension::GuardrailTopic, 0, None).is_some());
    let nothing = PriceOverride::from_fields(&[]).unwrap();
    assert_eq!(book.price(&ask("nobody.nothing", "us-east-1"), Some(&nothing)), None);
    assert!(matches!(book.price(&ask(HAIKU, "us-east-1"), None), Some(Cow::Borrowed(_))));
}

#[test]
fn a_price_for_all_images_replaces_the_listed_variants() {
    let book = PriceBook::bundled();
    let set = PriceOverride::from_fields(&[("output_cost_per_image", "0.01")]).unwrap();
    let price = book.price(&ask("stability.stable-diffusion-xl-v1", "us-east-1"), Some(&set)).unwrap();
    let image = Some(ImageTerms { width_px: 1024, height_px: 1024, steps: Some(50), premium: false });
    let usage = Usage { images_out: 1, ..Usage::default() };
    assert_eq!(cost(&price, &usage, &Terms { image, ..Terms::default() }), Ok(NanoUsd(10_000_000)));
}

#[test]
fn every_problem_of_a_book_is_told_with_its_line() {
    let error = book(concat!(
        "  - { model: a.b, per_million: { input: \"1\" } }\n",
        "  - { model: a.b, per_million: { input: \"2\" } }\n",
        "  - { model: c.d, per_million: { input: \"-1\", ouput: \"1\" } }\n",
        "  - { model: e.f, mode: chat }\n",
        "  - { per_million: { input: \"1\" } }\n",
        "  - { model: g.h, per_million: { input: \"1e-10\" }, max_input_tokens: many, colour: red }\n",
        "  - { model: i.j, image: { size: big }, per_unit: { image_out: \"1\" } }\n",
        "  - { model: k.l, above: [{ per_million: { input: \"1\" } }], per_million: { input: \"1\" } }\n",
        "  - { model: m.n, tiers: { turbo: { input: \"1\" } }, per_million: { input: \"1\" } }\n",
        "  - { model: o.p, commitment: 1-month, per_million: { input: \"1\" } }\n",
        "  - nothing\n",
    ))
    .unwrap_err();
    for (line, what) in [
        (6, "priced twice"),
        (7, "is negative"),
        (7, "`ouput` is not known"),
        (8, "`e.f` has no price"),
        (9, "needs `model`"),
        (10, "finer than"),
        (10, "`many` is not a number of tokens"),
        (10, "`colour` is not known"),
        (11, "`big` is not a size"),
        (12, "needs `tokens`"),
        (13, "`turbo` is not known"),
        (14, "no `provisioned_second`"),
        (15, "is not a mapping"),
    ] {
        let told = error.problems.iter().any(|problem| problem.line == line && problem.what.contains(what));
        assert!(told, "line {line}: {what} is missing in\n{error}");
    }
    let mut lines = String::new();
    for problem in &error.problems {
        writeln!(lines, "line {}: {}", problem.line, problem.what).unwrap();
    }
    assert_eq!(error.to_string(), lines.trim_end());
}

#[test]
fn a_text_that_is_no_book_is_an_error() {
    for text in
        ["", "[]", "prices: 1", "version: 2\nprices: []", "{{{", "version: 1\nprices: [", "a: b", "{}", "prices: []"]
    {
        assert!(PriceBook::from_yaml(text).is_err(), "{text:?}");
    }
    assert!(book("  []").is_ok());
}

#[test]
fn image_variants_may_stand_before_or_after_the_entry_for_all_other_images() {
    let general = "  - { model: a.b, mode: image_generation, per_unit: { image_out: \"0.5\" } }\n";
    let small = "  - { model: a.b, image: { size: 10x10 }, per_unit: { image_out: \"0.1\" } }\n";
    let one = book(&[general, small].concat()).unwrap();
    let other = book(&[small, general].concat()).unwrap();
    assert_eq!(one.find(&ask("a.b", "x")), other.find(&ask("a.b", "x")));
    assert!(book(&[small, small].concat()).is_err());
    assert!(book(&[small, general, general].concat()).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        prop_assert!(PriceBook::from_yaml(&text).is_err());
    }

    #[test]
    fn a_damaged_book_is_read_or_told_where_it_is_broken(
        at in 0usize..4000,
        length in 0usize..40,
        junk in "[-{}:\\[\\]\"'\n a0&*]{0,8}",
    ) {
        let mut text: Vec<char> = include_str!("../../../conf/prices.yaml").chars().take(6000).collect();
        let start = text.len() - at;
        text.splice(start - length.min(start)..start, junk.chars());
        let text: String = text.into_iter().collect();
        if let Err(error) = PriceBook::from_yaml(&text) {
            let lines = text.lines().count() + 1;
            prop_assert!(!error.problems.is_empty());
            prop_assert!(error.problems.iter().all(|problem| (1..=lines).contains(&problem.line)), "{error}");
        }
    }

    #[test]
    fn no_model_id_makes_the_search_panic(id in "(arn:)?[a-z:./-]{0,60}", region in "[a-z0-9-]{0,12}") {
        let book = PriceBook::bundled();
        let found = book.find(&Query { base_model: Some(&id), invoked_model: Some(&id), ..ask(&id, &region) });
        prop_assert!(found.is_none_or(|price| !price.is_empty()));
    }
}
