"""Driver of anthropic[bedrock]: the Messages API over InvokeModel and InvokeModelWithResponseStream."""

from anthropic import AnthropicBedrock
from driver import PROMPT, REGION, TOKENS_MAX, serve

MESSAGE = dict(max_tokens=TOKENS_MAX, messages=[{"role": "user", "content": PROMPT}])


def call(job):
    if job.auth == "bearer":
        key = dict(api_key=job.key)
    else:
        key = dict(aws_access_key=job.key, aws_secret_key=job.secret)
    client = AnthropicBedrock(base_url=job.url, aws_region=REGION, **key)
    if job.scenario == "chat":
        answer = client.messages.create(model=job.model, **MESSAGE)
        job.hears(answer.content[0].text)
    else:
        with client.messages.stream(model=job.model, **MESSAGE) as stream:
            for text in stream.text_stream:
                job.hears(text)
            answer = stream.get_final_message()
    job.bills(answer.usage.input_tokens, answer.usage.output_tokens)


serve(call)
