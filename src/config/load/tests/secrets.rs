//! What must never be seen of a configuration.

use super::*;

#[test]
fn no_secret_is_ever_shown() {
    let text = "\
model_list:
  - model_name: a
    dheera_ai_params:
      model: bedrock/amazon.nova-lite-v1:0
      aws_region_name: us-west-2
      aws_access_key_id: AKIAcanary
      aws_secret_access_key: secret-canary
      aws_session_token: token-canary
      aws_role_name: arn:aws:iam::123456789012:role/r
      aws_external_id: external-canary
  - model_name: b
    dheera_ai_params: {model: amazon.nova-lite-v1:0, aws_region_name: us-west-2, api_key: api-canary}
general_settings:
  master_key: master-canary-0123
  redis_url: redis://:url-canary@h:1/2
  soft_budget_webhook_url: https://hooks.example/hook-canary?x=canary
environment_variables: {AWS_SECRET_ACCESS_KEY: env-canary, OTHER: other-canary}
";
    let variables = [("AWS_BEARER_TOKEN_BEDROCK", "bearer-canary"), ("DHEERA_AI_MASTER_KEY", "master-canary-0123")];
    let loaded = good(text, &variables);
    let shown = show::to_yaml(&loaded.config);
    let everything = format!("{loaded:?}{loaded:#?}{shown}{}", show::summary(&loaded.config));
    assert!(!everything.contains("canary"), "{everything}");
    let mut problems = Vec::new();
    assert!(yaml::parse(&shown, &mut problems).is_some() && problems.is_empty(), "{shown}\n{problems:?}");

    // Secrets in every place where something else belongs.
    let misplaced = "\
model_list:
  - model_name: a
    dheera_ai_params:
      model: os.environ/SECRET
      aws_region_name: os.environ/SECRET
      weight: os.environ/SECRET
      timeout: os.environ/SECRET
      api_base: https://user:canary@host
      custom_llm_provider: os.environ/SECRET
      aws_role_name: os.environ/SECRET
      input_cost_per_token: os.environ/SECRET
    model_info: {mode: os.environ/SECRET, base_model: os.environ/SECRET}
general_settings:
  {port: os.environ/SECRET, host: os.environ/SECRET, request_log: os.environ/SECRET, redis_url: os.environ/SECRET,
  redis_db: os.environ/SECRET, budget_time_zone: os.environ/SECRET, unpriced: os.environ/SECRET,
  budget_slice_max: os.environ/SECRET, soft_budget_webhook_url: os.environ/SECRET,
  maximum_spend_logs_retention_period: os.environ/SECRET, user_header_name: os.environ/SECRET}
router_settings: {routing_strategy: os.environ/SECRET}
litellm_settings: {callbacks: os.environ/SECRET, require_auth_for_metrics_endpoint: os.environ/SECRET, budget_duration: os.environ/SECRET}
";
    let variables = [("SECRET", "canary/x"), ("DHEERA_AI_MASTER_KEY", "canary canary"), ("AWS_REGION", "canary")];
    let problems = bad(misplaced, &variables);
    assert!(problems.problems.len() >= 25, "{problems}");
    assert!(!format!("{problems}{problems:?}").contains("canary"), "{problems}");
}
