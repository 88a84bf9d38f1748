// Claude Code in print mode: one process a job, in an empty home, with the settings of docs/clients.md and nothing else
// of this process's environment. It always streams; `chat` takes its answer whole and `stream` event by event.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { PROMPT, REGION, serve } from "./driver.mjs";

const CLAUDE = fileURLToPath(new URL("node_modules/.bin/claude", import.meta.url));

const formats = {
  chat: ["--output-format", "json"],
  stream: ["--output-format", "stream-json", "--verbose", "--include-partial-messages"],
};

const keys = {
  bearer: ({ key }) => ({ CLAUDE_CODE_SKIP_BEDROCK_AUTH: "1", ANTHROPIC_AUTH_TOKEN: key }),
  "bedrock-key": ({ key }) => ({ AWS_BEARER_TOKEN_BEDROCK: key }),
  sigv4: ({ key, secret }) => ({ AWS_ACCESS_KEY_ID: key, AWS_SECRET_ACCESS_KEY: secret }),
};

// `only` puts the model in the place of each of Claude Code's own; without, it tries which of those can be called.
const models = (name, only) => ({
  ANTHROPIC_MODEL: name,
  ...(only && {
    ANTHROPIC_DEFAULT_OPUS_MODEL: name,
    ANTHROPIC_DEFAULT_SONNET_MODEL: name,
    ANTHROPIC_DEFAULT_HAIKU_MODEL: name,
  }),
});

const environment = ({ url, key, secret, auth, model, only = true }, home) => ({
  PATH: process.env.PATH,
  HOME: home,
  TMPDIR: home,
  CLAUDE_CODE_USE_BEDROCK: "1",
  ANTHROPIC_BEDROCK_BASE_URL: url,
  AWS_REGION: REGION,
  ...(process.env.NODE_EXTRA_CA_CERTS && { NODE_EXTRA_CA_CERTS: process.env.NODE_EXTRA_CA_CERTS }),
  // By default it tries ten times more, which takes three minutes.
  CLAUDE_CODE_MAX_RETRIES: "1",
  CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
  DISABLE_TELEMETRY: "1",
  DISABLE_AUTOUPDATER: "1",
  ...keys[auth]({ key, secret }),
  ...models(model, only),
});

class Failure extends Error {}

async function listen(stdout, got) {
  let result;
  for await (const line of createInterface({ input: stdout })) {
    const said = JSON.parse(line);
    if (said.type === "result") result = said;
    if (said.type !== "stream_event") continue;
    got.events += 1;
    got.text += said.event.delta?.text ?? "";
  }
  return result;
}

async function run(job, got) {
  const home = await mkdtemp(join(tmpdir(), "claude-"));
  try {
    const claude = spawn(CLAUDE, ["-p", PROMPT, ...formats[job.scenario]], {
      cwd: home,
      env: environment(job, home),
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [[status], result] = await Promise.all([once(claude, "exit"), listen(claude.stdout, got)]);
    if (status !== 0 || result.is_error) {
      throw Object.assign(new Failure(result?.result), { exit: status, status: result?.api_error_status });
    }
    got.events ||= 1;
    got.text = result.result;
    got.usage = { input: result.usage.input_tokens, output: result.usage.output_tokens };
  } finally {
    await rm(home, { recursive: true, maxRetries: 10 });
  }
}

// What there is to catch is its exit status.
await serve({ chat: run, stream: run }, (error) => ({
  class: error instanceof Failure ? `exit ${error.exit}` : error.constructor.name,
  code: null,
  status: error.status ?? null,
  message: error.message,
}));
