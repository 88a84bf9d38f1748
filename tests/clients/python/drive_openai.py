"""Driver of the openai package on Bedrock's /openai/v1: chat completions, the model in the body."""

from driver import PROMPT, TOKENS_MAX, serve
from openai import OpenAI

MESSAGES = [{"role": "user", "content": PROMPT}]


def call(job):
    client = OpenAI(base_url=f"{job.url}/openai/v1", api_key=job.key)
    asked = dict(model=job.model, messages=MESSAGES, max_completion_tokens=TOKENS_MAX)
    if job.scenario == "chat":
        answer = client.chat.completions.create(**asked)
        job.hears(answer.choices[0].message.content)
        job.bills(answer.usage.prompt_tokens, answer.usage.completion_tokens)
        return
    for part in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        job.hears(part.choices[0].delta.content if part.choices else "")
        if part.usage:
            job.bills(part.usage.prompt_tokens, part.usage.completion_tokens)


serve(call)
