// A conversation with Nova Sonic over InvokeModelWithBidirectionalStream: each event of ours waits for what answers the
// one before, so that nothing works unless both directions flow at once. Its one scenario takes `turns` from the job.

import { isDeepStrictEqual } from "node:util";
import { BedrockRuntimeClient, InvokeModelWithBidirectionalStreamCommand } from "@aws-sdk/client-bedrock-runtime";
import { described, serve, settings } from "./driver.mjs";

const encode = (event) => new TextEncoder().encode(JSON.stringify({ event }));
const decode = (bytes) => JSON.parse(new TextDecoder().decode(bytes)).event;

function* utterances(turns) {
  yield { sessionStart: { inferenceConfiguration: { maxTokens: 1024, topP: 0.9, temperature: 0.7 } } };
  for (let turn = 1; turn < turns - 1; turn += 1) {
    const content = Buffer.from(`sound ${turn}`).toString("base64");
    yield { audioInput: { promptName: "p1", contentName: "c1", content } };
  }
  yield { sessionEnd: {} };
}

async function conversation(job, got) {
  let answered = () => {};
  async function* speak() {
    for (const event of utterances(job.turns)) {
      const answer = new Promise((resolve) => (answered = resolve));
      yield { chunk: { bytes: encode(event) } };
      // The simulator answers with what it heard. An error thrown here would be lost in the SDK: stop short instead.
      if (!isDeepStrictEqual(JSON.parse(await answer), { event })) return;
      got.turns += 1;
    }
  }
  got.turns = 0;
  const client = new BedrockRuntimeClient(settings(job));
  try {
    const command = new InvokeModelWithBidirectionalStreamCommand({ modelId: job.model, body: speak() });
    for await (const { chunk } of (await client.send(command)).body) {
      const event = decode(chunk.bytes);
      got.events += 1;
      if (event.textOutput) got.text = event.textOutput.content;
      if (event.usageEvent) {
        const { input, output } = event.usageEvent.details.total;
        got.usage = { input: input.textTokens, output: output.textTokens };
        answered(got.text);
      }
    }
  } finally {
    client.destroy();
  }
}

await serve({ conversation }, described);
