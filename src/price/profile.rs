//! Which listed model says the price of an application inference profile, from the models that AWS lists for it.
//!
//! Such a profile is made from a foundation model of one region, or from a system-defined profile; `GetInferenceProfile`
//! tells only the regions it may route to, not what it was made from. One region means the plain id, the ARN without a
//! region the global profile, several regions the profile of their geography. Where that leaves a choice, the dearest
//! is taken: a bound must hold. Source: AWS user guide, "Supported Regions and models for inference profiles", and
//! InferenceProfileModel of botocore 1.44.5. Asking AWS is `deployment::profiles`'s business.

use std::collections::BTreeSet;

use super::book::{Price, PriceBook, Query, Surface};
use super::reference::{GEOGRAPHIES, Reference, without_geography};

/// The id whose price is that of a profile of `region` that routes to `models` (`modelArn`s). It need not be listed:
/// [`PriceBook::find`] then takes the nearest price. `None` when the list is empty or names several models.
#[must_use]
pub fn base_model(book: &PriceBook, models: &[&str], region: &str) -> Option<String> {
    let mut regions = BTreeSet::new();
    let mut model = None;
    for arn in models {
        let arn = arn.starts_with("arn:").then_some(arn)?;
        let Reference { id, region } = Reference::of(arn, "")?;
        if *model.get_or_insert(id) != id {
            return None;
        }
        regions.insert(region);
    }
    let id = model?;
    if without_geography(id) != id {
        return Some(id.to_owned());
    }
    if regions.contains("") {
        return Some(format!("global.{id}"));
    }
    if regions.len() == 1 && regions.contains(region) {
        return Some(id.to_owned());
    }
    let mut candidates: Vec<String> = GEOGRAPHIES
        .into_iter()
        .filter(|geography| regions.iter().all(|region| covers(geography, region)))
        .map(|geography| format!("{geography}.{id}"))
        .collect();
    if candidates.is_empty() {
        // No geography that is known here: whatever is listed may be meant.
        candidates = GEOGRAPHIES.into_iter().map(|geography| format!("{geography}.{id}")).collect();
        candidates.push(id.to_owned());
    }
    let dearest = candidates.iter().filter_map(|id| Some((listed(book, id, region)?, id))).max();
    dearest.map(|(_, id)| id.clone()).or_else(|| candidates.pop())
}

/// How dear the exact id is in the region, if it is listed there.
fn listed(book: &PriceBook, id: &str, region: &str) -> Option<u128> {
    let query = Query { model_id: id, region, surface: Surface::Runtime, base_model: None, invoked_model: None };
    book.exact(id, &query).map(Price::dearness)
}

/// Whether profiles of a geography route to a region.
fn covers(geography: &str, region: &str) -> bool {
    match geography {
        "us-gov" => region.starts_with("us-gov-"),
        // Canada has profiles of its own and is part of those of the United States, too.
        "us" => region.starts_with("ca-") || (region.starts_with("us-") && !region.starts_with("us-gov-")),
        "ca" => region.starts_with("ca-"),
        "eu" => region.starts_with("eu-"),
        "jp" => matches!(region, "ap-northeast-1" | "ap-northeast-3"),
        "au" => matches!(region, "ap-southeast-2" | "ap-southeast-4" | "ap-southeast-6"),
        "in" => region.starts_with("ap-south-"),
        "apac" => region.starts_with("ap-"),
        // The global profile lists an ARN without a region.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two models; of the second only Asia's profiles are listed, Japan's dearer than that of the whole.
    const LISTED: [(&str, &str); 7] = [
        ("v.one", "1"),
        ("us.v.one", "1.1"),
        ("us-gov.v.one", "1.2"),
        ("global.v.one", "1"),
        ("eu.v.one", "1.3"),
        ("apac.v.two", "2"),
        ("jp.v.two", "3"),
    ];

    fn book() -> PriceBook {
        let entry = |(id, usd): &(&str, &str)| {
            format!("  - model: {id}\n    mode: chat\n    per_million: {{ input: '{usd}', output: '{usd}' }}\n")
        };
        let entries: String = LISTED.iter().map(entry).collect();
        PriceBook::from_yaml(&format!("version: 1\ncollected: 2026-11-22\ncurrency: USD\nprices:\n{entries}")).unwrap()
    }

    fn arn(region: &str, id: &str) -> String {
        format!("arn:aws:bedrock:{region}::foundation-model/{id}")
    }

    #[test]
    fn the_regions_of_a_profile_tell_its_base_model() {
        let book = book();
        for (id, profile_region, regions, expected) in [
            ("v.one", "us-east-1", &["us-east-1"][..], Some("v.one")),
            ("v.one", "us-east-1", &["us-east-1", "us-west-2"], Some("us.v.one")),
            ("v.one", "ca-central-1", &["us-east-1", "ca-central-1"], Some("us.v.one")),
            // One region, but another than its own: it routes across regions.
            ("v.one", "us-east-1", &["us-west-2"], Some("us.v.one")),
            ("v.one", "us-gov-west-1", &["us-gov-west-1", "us-gov-east-1"], Some("us-gov.v.one")),
            ("v.one", "eu-west-1", &["eu-west-1", "eu-central-1", "eu-west-1"], Some("eu.v.one")),
            ("v.one", "us-east-1", &["us-east-1", ""], Some("global.v.one")),
            ("v.one", "us-east-1", &[""], Some("global.v.one")),
            // Japan's regions lie in Asia, too: the dearer of the two that are listed.
            ("v.two", "ap-northeast-1", &["ap-northeast-1", "ap-northeast-3"], Some("jp.v.two")),
            ("v.two", "ap-northeast-1", &["ap-northeast-1", "ap-southeast-1"], Some("apac.v.two")),
            // Nothing of it is listed there: the price book takes what is nearest.
            ("v.one", "ap-northeast-1", &["ap-northeast-1", "ap-southeast-1"], Some("apac.v.one")),
            // Regions of no single geography: the dearest that is listed.
            ("v.one", "us-east-1", &["us-east-1", "eu-west-1"], Some("eu.v.one")),
            ("v.three", "us-east-1", &["us-east-1", "sa-east-1"], Some("v.three")),
        ] {
            let arns: Vec<_> = regions.iter().map(|region| arn(region, id)).collect();
            let arns: Vec<_> = arns.iter().map(String::as_str).collect();
            assert_eq!(
                base_model(&book, &arns, profile_region).as_deref(),
                expected,
                "{id} {profile_region} {regions:?}"
            );
        }
    }

    #[test]
    fn a_list_that_names_no_model_or_several_tells_nothing() {
        let book = book();
        let (one, two) = (arn("us-east-1", "v.one"), arn("us-west-2", "v.two"));
        for models in [
            &[][..],
            &[one.as_str(), two.as_str()],
            &["v.one"],
            &["arn:aws:bedrock:us-east-1:1:custom-model/x"],
            &["arn:aws:bedrock:us-east-1:1:application-inference-profile/x"],
            &["arn:aws:bedrock", one.as_str()],
            &[""],
        ] {
            assert_eq!(base_model(&book, models, "us-east-1"), None, "{models:?}");
        }
        // A profile of profiles says its geography itself.
        let nested = "arn:aws:bedrock:us-east-1:1:inference-profile/eu.v.one";
        assert_eq!(base_model(&book, &[nested], "us-east-1").as_deref(), Some("eu.v.one"));
    }
}
