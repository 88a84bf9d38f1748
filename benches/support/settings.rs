//! Reading a configuration, as at the start and at every reload.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;

use dheera_ai::config::load::{CliOverrides, Source, load};
use dheera_ai::types::secret::Secret;

use super::Case;

/// The configuration of `make demo`.
pub fn demo() -> Case {
    read(include_str!("../../conf/demo.yaml").to_owned())
}

/// A list of as many deployments, four to a name.
pub fn deployments(count: usize) -> Case {
    let mut text = "model_list:\n".to_owned();
    for number in 0..count {
        write!(
            text,
            "  - model_name: model-{}\n    dheera_ai_params:\n      model: bedrock/us.amazon.nova-pro-v1:0\n      \
             aws_region_name: us-west-2\n      aws_access_key_id: AKIDEXAMPLE\n      \
             aws_secret_access_key: not-a-real-secret-key\n      rpm: 100\n",
            number / 4
        )
        .unwrap();
    }
    read(text)
}

fn read(text: String) -> Case {
    let environment: BTreeMap<String, Secret> = BTreeMap::new();
    let bytes = text.len();
    let work = move || {
        let source = Source::Text { name: "benchmark.yaml".to_owned(), text: text.clone() };
        let loaded = load(source, &environment, &CliOverrides::default());
        assert!(!black_box(loaded).unwrap().config.deployments.is_empty());
    };
    Case::new(work).reading(bytes)
}
