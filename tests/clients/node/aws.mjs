// The AWS SDK for JavaScript v3, as applications use it: default handler (HTTP/2), default retries.

import { BedrockAgentRuntimeClient, InvokeAgentCommand } from "@aws-sdk/client-bedrock-agent-runtime";
import {
  BedrockRuntimeClient,
  ConverseCommand,
  ConverseStreamCommand,
  InvokeModelCommand,
  InvokeModelWithResponseStreamCommand,
} from "@aws-sdk/client-bedrock-runtime";
import { described, PROMPT, serve, settings, TOKENS_MAX } from "./driver.mjs";

async function send(Client, job, command, read) {
  const client = new Client(settings(job));
  try {
    await read(await client.send(command));
  } finally {
    client.destroy();
  }
}

const converse = ({ model }) => ({
  modelId: model,
  messages: [{ role: "user", content: [{ text: PROMPT }] }],
  inferenceConfig: { maxTokens: TOKENS_MAX },
});

const invoke = ({ model }) => ({
  modelId: model,
  body: JSON.stringify({
    anthropic_version: "bedrock-2023-05-31",
    max_tokens: TOKENS_MAX,
    messages: [{ role: "user", content: PROMPT }],
  }),
});

const usage = ({ inputTokens, outputTokens }) => ({ input: inputTokens, output: outputTokens });

const scenarios = {
  chat: (job, got) =>
    send(BedrockRuntimeClient, job, new ConverseCommand(converse(job)), (answer) => {
      got.text = answer.output.message.content[0].text;
      got.events = 1;
      got.usage = usage(answer.usage);
    }),

  stream: (job, got) =>
    send(BedrockRuntimeClient, job, new ConverseStreamCommand(converse(job)), async (answer) => {
      for await (const event of answer.stream) {
        got.events += 1;
        got.text += event.contentBlockDelta?.delta.text ?? "";
        if (event.metadata) got.usage = usage(event.metadata.usage);
      }
    }),

  invoke: (job, got) =>
    send(BedrockRuntimeClient, job, new InvokeModelCommand(invoke(job)), (answer) => {
      const message = JSON.parse(answer.body.transformToString());
      got.text = message.content[0].text;
      got.events = 1;
      got.usage = { input: message.usage.input_tokens, output: message.usage.output_tokens };
    }),

  "invoke-stream": (job, got) =>
    send(BedrockRuntimeClient, job, new InvokeModelWithResponseStreamCommand(invoke(job)), async (answer) => {
      for await (const { chunk } of answer.body) {
        const event = JSON.parse(new TextDecoder().decode(chunk.bytes));
        got.events += 1;
        got.text += event.delta?.text ?? "";
        const metrics = event["amazon-bedrock-invocationMetrics"];
        if (metrics) got.usage = { input: metrics.inputTokenCount, output: metrics.outputTokenCount };
      }
    }),

  agent: (job, got) => {
    const command = new InvokeAgentCommand({
      agentId: "AGENT12345",
      agentAliasId: "ALIAS12345",
      sessionId: "s1",
      inputText: PROMPT,
    });
    return send(BedrockAgentRuntimeClient, job, command, async (answer) => {
      for await (const { chunk } of answer.completion) {
        got.events += 1;
        got.text += new TextDecoder().decode(chunk.bytes);
      }
    });
  },
};

await serve(scenarios, described);
