"""Driver of langchain-aws. `chat` and `stream` use ChatBedrockConverse, `invoke` and `invoke-stream` ChatBedrock."""

from driver import PROMPT, REGION, TOKENS_MAX, serve
from langchain_aws import ChatBedrock, ChatBedrockConverse


def call(job):
    if job.auth == "bearer":
        key = dict(bedrock_api_key=job.key)
    else:
        key = dict(aws_access_key_id=job.key, aws_secret_access_key=job.secret)
    where = dict(model=job.model, provider="anthropic", region_name=REGION, endpoint_url=job.url, **key)
    if job.scenario in ("chat", "stream"):
        model = ChatBedrockConverse(**where, max_tokens=TOKENS_MAX, disable_streaming=False)
    else:
        model = ChatBedrock(**where, model_kwargs={"max_tokens": TOKENS_MAX})
    whole = None
    for part in model.stream(PROMPT) if job.scenario.endswith("stream") else [model.invoke(PROMPT)]:
        job.hears(part.text)
        whole = part if whole is None else whole + part
    job.bills(whole.usage_metadata["input_tokens"], whole.usage_metadata["output_tokens"])


serve(call)
