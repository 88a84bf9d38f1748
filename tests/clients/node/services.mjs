// Calls of the AWS SDK beside chats: agents, knowledge bases and flows, whose client speaks HTTP/2, too, and the
// control plane, whose client speaks HTTP/1.1. `got.answer` is what the application gets, streams read to their end.

import { BedrockClient, GetInferenceProfileCommand, ListFoundationModelsCommand } from "@aws-sdk/client-bedrock";
import {
  BedrockAgentRuntimeClient,
  InvokeAgentCommand,
  InvokeFlowCommand,
  RetrieveAndGenerateStreamCommand,
  RetrieveCommand,
} from "@aws-sdk/client-bedrock-agent-runtime";
import { described, PROMPT, serve, settings } from "./driver.mjs";

const calls = {
  agent: (client) =>
    client(BedrockAgentRuntimeClient).send(
      new InvokeAgentCommand({
        agentId: "AGENT12345",
        agentAliasId: "ALIAS12345",
        sessionId: "s1",
        inputText: PROMPT,
        enableTrace: true,
      }),
    ),

  flow: (client) =>
    client(BedrockAgentRuntimeClient).send(
      new InvokeFlowCommand({
        flowIdentifier: "FLOW123456",
        flowAliasIdentifier: "ALIAS12345",
        inputs: [{ content: { document: PROMPT }, nodeName: "FlowInputNode", nodeOutputName: "document" }],
      }),
    ),

  retrieve: (client) =>
    client(BedrockAgentRuntimeClient).send(
      new RetrieveCommand({ knowledgeBaseId: "KB12345678", retrievalQuery: { text: PROMPT } }),
    ),

  "retrieve-and-generate": (client) =>
    client(BedrockAgentRuntimeClient).send(
      new RetrieveAndGenerateStreamCommand({
        input: { text: PROMPT },
        retrieveAndGenerateConfiguration: {
          type: "KNOWLEDGE_BASE",
          knowledgeBaseConfiguration: {
            knowledgeBaseId: "KB12345678",
            modelArn: "arn:aws:bedrock:us-west-2::foundation-model/anthropic.claude-3-haiku-20240307-v1:0",
          },
        },
      }),
    ),

  models: (client) => client(BedrockClient).send(new ListFoundationModelsCommand({ byProvider: "anthropic" })),

  profile: (client) =>
    client(BedrockClient).send(
      new GetInferenceProfileCommand({
        inferenceProfileIdentifier:
          "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/demo12345678",
      }),
    ),
};

async function whole({ $metadata, ...answer }) {
  for (const [name, value] of Object.entries(answer)) {
    if (!value?.[Symbol.asyncIterator]) continue;
    answer[name] = [];
    for await (const event of value) answer[name].push(event);
  }
  return answer;
}

const scenario = (call) => async (job, got) => {
  const client = (Client) => new Client(settings(job));
  got.answer = await whole(await call(client));
};

await serve(Object.fromEntries(Object.entries(calls).map(([name, call]) => [name, scenario(call)])), described);
