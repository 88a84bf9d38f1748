// Many calls at once over one client of the AWS SDK with its default settings, as a busy application makes them:
// Converse, ConverseStream and InvokeModel in turn, each told apart by its number. A job has `requests`, `concurrency`.

import { subscribe } from "node:diagnostics_channel";
import {
  BedrockRuntimeClient,
  ConverseCommand,
  ConverseStreamCommand,
  InvokeModelCommand,
} from "@aws-sdk/client-bedrock-runtime";
import { described, serve, settings } from "./driver.mjs";

const messages = (text) => [{ role: "user", content: [{ text }] }];

const calls = [
  async (client, modelId, text) => {
    const answer = await client.send(new ConverseCommand({ modelId, messages: messages(text) }));
    return answer.output.message.content[0].text;
  },
  async (client, modelId, text) => {
    const answer = await client.send(new ConverseStreamCommand({ modelId, messages: messages(text) }));
    let whole = "";
    let ended = false;
    for await (const event of answer.stream) {
      whole += event.contentBlockDelta?.delta.text ?? "";
      ended ||= event.metadata !== undefined;
    }
    return ended ? whole : "without an end";
  },
  async (client, modelId, text) => {
    const body = JSON.stringify({
      anthropic_version: "bedrock-2023-05-31",
      max_tokens: 100,
      messages: [{ role: "user", content: text }],
    });
    const answer = await client.send(new InvokeModelCommand({ modelId, body }));
    return JSON.parse(answer.body.transformToString()).content[0].text;
  },
];

async function many(job, got) {
  got.connections = 0;
  got.failures = [];
  subscribe("net.client.socket", () => (got.connections += 1));
  const client = new BedrockRuntimeClient(settings(job));
  let next = 0;
  const worker = async () => {
    while (next < job.requests) {
      const number = next;
      next += 1;
      const text = `This is story ${number} of many`;
      try {
        const answer = await calls[number % calls.length](client, job.model, text);
        if (answer.includes(text)) got.events += 1;
        else got.failures.push({ number, answer });
      } catch (error) {
        got.failures.push({ number, error: described(error) });
      }
    }
  };
  await Promise.all(Array.from({ length: job.concurrency }, worker));
  client.destroy();
}

await serve({ many }, described);
