// Anthropic's SDK for Bedrock: the Messages API on top of InvokeModel.

import { AnthropicBedrock } from "@anthropic-ai/bedrock-sdk";
import { PROMPT, REGION, serve, TOKENS_MAX } from "./driver.mjs";

const client = ({ url, key, secret, auth }) =>
  new AnthropicBedrock({
    awsRegion: REGION,
    baseURL: url,
    ...(auth === "bearer" ? { apiKey: key } : { awsAccessKey: key, awsSecretKey: secret }),
  });

const message = ({ model }) => ({
  model,
  max_tokens: TOKENS_MAX,
  messages: [{ role: "user", content: PROMPT }],
});

const scenarios = {
  async chat(job, got) {
    const answer = await client(job).messages.create(message(job));
    got.text = answer.content[0].text;
    got.events = 1;
    got.usage = { input: answer.usage.input_tokens, output: answer.usage.output_tokens };
  },

  async stream(job, got) {
    got.usage = {};
    for await (const event of await client(job).messages.create({ ...message(job), stream: true })) {
      got.events += 1;
      got.text += event.delta?.text ?? "";
      if (event.type === "message_start") got.usage.input = event.message.usage.input_tokens;
      if (event.type === "message_delta") got.usage.output = event.usage.output_tokens;
    }
  },
};

await serve(scenarios, (error) => ({
  class: error.constructor.name,
  // Of a status it says nothing but the message; of an exception in mid-stream, the name, too.
  code: error.type ?? null,
  status: error.status ?? null,
  message: error.message,
}));
