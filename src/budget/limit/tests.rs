use super::*;

const START_MS: u64 = 1_793_491_200_000;

/// Every window is as long as its period and began at the same moment.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that `compose` asks for")]
fn windows(period: &Period) -> Window {
    Window { start_ms: START_MS, end_ms: START_MS + period.length_ms() }
}

fn limits(json: &str) -> LimitSet {
    serde_json::from_str(json).unwrap()
}

fn party<'a>(scope: Scope, id: &'a str, limits: &'a LimitSet) -> Party<'a> {
    Party { scope, id, limits, budget: None }
}

fn demands(parties: &[Party<'_>], model: Option<&str>) -> Demands {
    compose(parties, model, &mut windows)
}

/// `name`, or `name<=limit`.
fn charges(demands: &Demands) -> Vec<String> {
    let one = |charge: &Charge| match charge.limit {
        Some(limit) => format!("{}<={}", charge.account, limit.0),
        None => charge.account.to_string(),
    };
    demands.charges.iter().map(one).collect()
}

#[test]
fn everyone_counts_on_a_total_and_only_limits_limit() {
    let none = LimitSet::default();
    let parties =
        [party(Scope::Key, "k", &none), party(Scope::Team, "t", &none), party(Scope::Global, GLOBAL_ID, &none)];
    let demands = demands(&parties, Some("m"));
    assert_eq!(charges(&demands), ["key/k/total", "team/t/total", "global/all/total"]);
    assert!(!demands.is_limited() && demands.throttles.is_empty() && demands.soft.is_empty());
    assert!(demands.charges.iter().all(|charge| charge.forget_at_ms.is_none()));
    assert_eq!(compose(&[], None, &mut windows), Demands::default());
}

#[test]
fn a_budget_is_on_the_total_or_on_its_window() {
    let forever = limits(r#"{"max_budget":5}"#);
    let demand = demands(&[party(Scope::Key, "k", &forever)], None);
    assert_eq!(charges(&demand), ["key/k/total<=5"]);
    assert!(demand.is_limited());

    let monthly = limits(r#"{"max_budget":5,"soft_budget":3,"budget_duration":"30d"}"#);
    let demand = demands(&[party(Scope::Team, "t", &forever), party(Scope::Key, "k", &monthly)], None);
    assert_eq!(charges(&demand), ["team/t/total<=5", "key/k/total", "key/k/30d/1793491200<=5"]);
    assert_eq!((demand.primary, demand.soft.clone()), (2, vec![(2, NanoUsd(3))]));
    assert_eq!(demand.charges[2].forget_at_ms, Some(START_MS + (90 + 45) * 86_400_000));

    let soft = limits(r#"{"soft_budget":3,"budget_duration":"1d"}"#);
    let demand = demands(&[party(Scope::Key, "k", &soft)], None);
    assert_eq!(charges(&demand), ["key/k/total", "key/k/1d/1793491200"]);
    assert_eq!((demand.primary, demand.soft.clone(), demand.is_limited()), (1, vec![(1, NanoUsd(3))], false));
}

#[test]
fn nothing_may_be_spent_of_zero() {
    let zero = limits(r#"{"max_budget":0,"rpm_limit":0}"#);
    let demand = demands(&[party(Scope::Key, "k", &zero)], None);
    assert_eq!(charges(&demand), ["key/k/total<=0"]);
    assert_eq!(demand.throttles[0].rpm, Some(0));
}

#[test]
fn one_account_holds_the_smallest_of_its_limits() {
    let several = limits(
        r#"{"max_budget":9,"budget_duration":"1d","budget_limits":[{"max_budget":7,"budget_duration":"1d"},
            {"max_budget":50,"budget_duration":"1mo"},{"max_budget":60,"budget_duration":"1mo"},{"max_budget":99}]}"#,
    );
    let demand = demands(&[party(Scope::Key, "k", &several)], None);
    assert_eq!(charges(&demand), ["key/k/total<=99", "key/k/1d/1793491200<=7", "key/k/1mo/1793491200<=50"]);
    assert_eq!(demand.primary, 1);
    // A tag that is named twice.
    let tag = limits(r#"{"max_budget":4,"tpm_limit":8}"#);
    let other = limits(r#"{"max_budget":3,"tpm_limit":9,"max_parallel_requests":2}"#);
    let demand = demands(&[party(Scope::Tag, "x", &tag), party(Scope::Tag, "x", &other)], None);
    assert_eq!(charges(&demand), ["tag/x/total<=3"]);
    let throttle = &demand.throttles[0];
    assert_eq!((demand.throttles.len(), throttle.tpm, throttle.parallel, throttle.rpm), (1, Some(8), Some(2), None));
}

#[test]
fn a_budget_record_fills_what_is_not_set() {
    let own = limits(r#"{"max_budget":5,"rpm_limit":1}"#);
    let shared = limits(
        r#"{"max_budget":50,"soft_budget":4,"budget_duration":"1w","rpm_limit":10,"tpm_limit":20,
            "model_max_budget":{"m":{"max_budget":2}},"budget_limits":[{"max_budget":6,"budget_duration":"1h"}]}"#,
    );
    let demand = demands(&[Party { budget: Some(&shared), ..party(Scope::Customer, "c", &own) }], Some("m"));
    assert_eq!(
        charges(&demand),
        [
            "customer/c/total",
            "customer/c/1w/1793491200<=5",
            "customer/c/1h/1793491200<=6",
            "customer/c/model/m/total<=2"
        ]
    );
    assert_eq!((demand.throttles[0].rpm, demand.throttles[0].tpm), (Some(1), Some(20)));
    assert_eq!(demand.soft, [(1, NanoUsd(4))]);
}

#[test]
fn models_have_budgets_and_rates_of_their_own() {
    let set = limits(
        r#"{"model_max_budget":{"claude-*":{"max_budget":3,"budget_duration":"1d"},"claude-3":{"max_budget":1},
            "*":{"max_budget":9}},"model_rpm_limit":{"claude-3":5,"*":50},"model_tpm_limit":{"claude-3":7}}"#,
    );
    let of = |model| demands(&[party(Scope::Key, "k", &set)], model);
    assert_eq!(charges(&of(Some("claude-3"))), ["key/k/total", "key/k/model/claude-3/total<=1"]);
    assert_eq!(
        charges(&of(Some("claude-4"))),
        ["key/k/total", "key/k/model/*/total<=9", "key/k/model/claude-*/1d/1793491200<=3"]
    );
    assert_eq!(charges(&of(None)), ["key/k/total"]);
    let demand = of(Some("claude-3"));
    assert_eq!(demand.charges[1].scope, Scope::KeyModel);
    let throttles: Vec<_> = demand.throttles.iter().map(|t| (t.account.as_str(), t.rpm, t.tpm)).collect();
    assert_eq!(throttles, [("rate/key/k/model/claude-3", Some(5), Some(7))]);
    assert_eq!(of(Some("x")).throttles[0].account.as_str(), "rate/key/k/model/*");
    assert!(of(None).throttles.is_empty());
    // A limit on a name holds though the name has a star in it.
    assert_eq!(charges(&of(Some("claude-*"))), ["key/k/total", "key/k/model/claude-*/1d/1793491200<=3"]);
}

#[test]
fn names_of_accounts_are_unambiguous() {
    let set = limits(r#"{"max_budget":1}"#);
    let name = |id: &str| demands(&[party(Scope::Tag, id, &set)], None).charges[0].account.to_string();
    assert_eq!(name("a/b{c}%2F \n\u{2028}é"), "tag/a%2Fb%7Bc%7D%252F%20%0A%E2%80%A8é/total");
    let ids = ["a", "a/b", "a%2Fb", "a/total", "a/30d/1", "", "{a}", "%7Ba%7D", "a b", "a%20b", "*", "model"];
    let mut names: Vec<_> = ids.map(name).to_vec();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), ids.len());
}

#[test]
fn stars_stand_for_any_text() {
    for (pattern, text, expected) in [
        ("*", "", true),
        ("*", "abc", true),
        ("a*", "abc", true),
        ("*c", "abc", true),
        ("a*c", "abc", true),
        ("a*c", "ac", true),
        ("a*a", "a", false),
        ("*b*", "abc", true),
        ("**", "", true),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c", false),
        ("*ab*ab", "ab", false),
        ("*ab*ab", "abab", true),
        ("*aab", "aaab", true),
        ("é*", "éa", true),
        ("abc", "abc", true),
        ("abc", "abcd", false),
        ("", "", true),
        ("", "a", false),
        ("a.c", "abc", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}

#[test]
fn accounts_are_shown_with_their_meaning() {
    let set = limits(
        r#"{"max_budget":9,"budget_duration":"1d","budget_limits":[{"max_budget":7,"budget_duration":"1h"}],
            "model_max_budget":{"a":{"max_budget":1},"b":{"max_budget":2,"budget_duration":"1w"}}}"#,
    );
    let shown: Vec<_> = budget_accounts(&party(Scope::Key, "k", &set), &mut windows)
        .into_iter()
        .map(|shown| (shown.charge.account.to_string(), shown.of, shown.resets_at_ms.map(|at| at - START_MS)))
        .collect();
    assert_eq!(
        shown,
        [
            ("key/k/total".to_owned(), BudgetOf::Total, None),
            ("key/k/1d/1793491200".to_owned(), BudgetOf::MaxBudget, Some(86_400_000)),
            ("key/k/1h/1793491200".to_owned(), BudgetOf::BudgetLimits, Some(3_600_000)),
            ("key/k/model/a/total".to_owned(), BudgetOf::Model("a".to_owned()), None),
            ("key/k/model/b/1w/1793491200".to_owned(), BudgetOf::Model("b".to_owned()), Some(7 * 86_400_000)),
        ]
    );
}

#[test]
fn limits_that_cannot_be_kept_are_named() {
    assert_eq!(LimitSet::default().check(), []);
    let most = AMOUNT_MAX.0;
    let fine = format!(r#"{{"max_budget":{most},"soft_budget":{most},"budget_duration":"1mo","rpm_limit":0}}"#);
    assert_eq!(limits(&fine).check(), []);
    let more = most + 1;
    let wrong = format!(
        r#"{{"max_budget":{more},"soft_budget":{more},"rpm_limit":{more},"tpm_limit":{more},
            "max_parallel_requests":{more},"budget_limits":[{{"max_budget":1}},{{"max_budget":{more}}}],
            "model_max_budget":{{"a":{{"max_budget":{more}}},"":{{"max_budget":1}}}},"model_tpm_limit":{{"b":{more}}}}}"#
    );
    let fields: Vec<_> = limits(&wrong).check().into_iter().map(|(field, _)| field).collect();
    assert_eq!(
        fields,
        [
            "max_budget",
            "soft_budget",
            "budget_limits[1].max_budget",
            "model_max_budget.a.max_budget",
            "rpm_limit",
            "tpm_limit",
            "max_parallel_requests",
            "model_tpm_limit.b",
            "model_max_budget",
        ]
    );
    let (field, text) = limits(r#"{"budget_duration":"1d"}"#).check().remove(0);
    assert_eq!(field, "budget_duration");
    assert!(text.contains("set max_budget"), "{text}");
}
