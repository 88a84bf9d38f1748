// What every driver here has in common: it reads jobs and answers them, as tests/clients/registry.py lays down.
// A driver gives its scenarios; each fills in what an application has got so far, or throws.

import { createInterface } from "node:readline";

export const PROMPT = "Tell me a story";
export const TOKENS_MAX = 100;
export const REGION = "us-west-2";

export async function serve(scenarios, describe) {
  for await (const line of createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    const got = { text: "", events: 0 };
    let answer = got;
    try {
      await scenarios[job.scenario](job, got);
    } catch (error) {
      answer = { error: describe(error), text_so_far: got.text };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
}

// What the AWS SDK is told: where, and the key. The rest is its defaults.
export function settings({ url, key, secret, auth, region = REGION }) {
  const usual = { region, endpoint: url };
  delete process.env.AWS_BEARER_TOKEN_BEDROCK;
  if (auth === "sigv4") return { ...usual, credentials: { accessKeyId: key, secretAccessKey: secret } };
  // A `token` in the settings is not enough: the SDK would still look for credentials to sign with.
  process.env.AWS_BEARER_TOKEN_BEDROCK = key;
  return usual;
}

// The AWS SDK's errors carry AWS's name of the error; most have a class of that name, too.
export const described = (error) => ({
  class: error.constructor.name,
  code: error.name,
  status: error.$metadata?.httpStatusCode ?? null,
  message: error.message,
});
