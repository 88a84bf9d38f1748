//! Where the salt key comes from, and that it never becomes visible.

use super::*;

#[test]
fn a_salt_key_comes_from_one_place_and_is_long_enough() {
    const KEY: &str = "salt-0123456789abcdef";
    let written = format!("general_settings: {{salt_key: {KEY}, master_key: sk-0123456789abcdef}}\n");
    for (text, variables) in [
        (written.as_str(), vec![]),
        (written.as_str(), vec![("DHEERA_AI_SALT_KEY", KEY), ("LITELLM_SALT_KEY", KEY)]),
        ("", vec![("DHEERA_AI_SALT_KEY", KEY)]),
        ("", vec![("LITELLM_SALT_KEY", KEY)]),
    ] {
        let config = good(text, &variables).config;
        assert_eq!(config.access.salt_key, Some(Secret::new(KEY)), "{variables:?}");
        assert!(!show::to_yaml(&config).contains(KEY));
    }
    assert_eq!(good("", &[("DHEERA_AI_SALT_KEY", "")]).config.access.salt_key, None);
    for (text, variables, what) in [
        ("", vec![("DHEERA_AI_SALT_KEY", "canary")], "fewer than 16 characters"),
        ("general_settings: {salt_key: canary}\n", vec![], "fewer than 16 characters"),
        ("", vec![("DHEERA_AI_SALT_KEY", "canary-0123456789\n")], "white space"),
        (written.as_str(), vec![("DHEERA_AI_SALT_KEY", "canary-0123456789")], "differs"),
        ("", vec![("DHEERA_AI_SALT_KEY", KEY), ("LITELLM_SALT_KEY", "canary-0123456789")], "differs"),
    ] {
        let problems = bad(text, &variables).to_string();
        assert!(problems.contains(what) && !problems.contains("canary"), "{problems}");
    }
}
