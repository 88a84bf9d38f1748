// The AI SDK with its Bedrock provider: generateText and streamText on top of Converse.

import { createAmazonBedrock } from "@ai-sdk/amazon-bedrock";
import { generateText, streamText } from "ai";
import { PROMPT, REGION, serve, TOKENS_MAX } from "./driver.mjs";

function question({ url, key, secret, auth, model }) {
  const bedrock = createAmazonBedrock({
    region: REGION,
    baseURL: url,
    ...(auth === "bearer" ? { apiKey: key } : { accessKeyId: key, secretAccessKey: secret }),
  });
  return { model: bedrock(model), prompt: PROMPT, maxOutputTokens: TOKENS_MAX };
}

const usage = ({ inputTokens, outputTokens }) => ({ input: inputTokens, output: outputTokens });

const scenarios = {
  async chat(job, got) {
    const answer = await generateText(question(job));
    got.text = answer.text;
    got.events = 1;
    got.usage = usage(answer.usage);
  },

  async stream(job, got) {
    const errors = [];
    const answer = streamText({ ...question(job), onError: ({ error }) => errors.push(error) });
    for await (const text of answer.textStream) {
      got.events += 1;
      got.text += text;
    }
    if (errors.length > 0) throw errors[0];
    got.usage = usage(await answer.usage);
  },
};

await serve(scenarios, (error) => {
  // Of what was tried several times, the last.
  const last = error.lastError ?? error;
  return {
    // What comes in mid-stream is a bare object, no exception.
    class: error.name ?? error.constructor.name,
    code: last.responseHeaders?.["x-amzn-errortype"] ?? null,
    status: last.statusCode ?? null,
    message: error.message,
  };
});
