"""The JavaScript clients, see registry.py. What they do is written down as seen with the versions of package.json."""

import json
from pathlib import Path

from registry import CODES, RETRIED, Client, Seen, errors

FOLDER = Path(__file__).with_name("node")
VERSIONS = json.loads((FOLDER / "package.json").read_text())["dependencies"]
IN_A_STREAM = ("exception_frame", "cut_between_frames", "cut_in_frame")


def aws(condition, code):
    """A class of the error's name; in mid-stream, too."""
    return code[0].upper() + code[1:]


def by_status(condition, code):
    """Anthropic's SDK names errors after the status, and those in mid-stream not at all."""
    return {
        "wrong_key": "PermissionDeniedError",
        "wrong_secret": "PermissionDeniedError",
        "unknown_model": "NotFoundError",
        "invalid": "BadRequestError",
        "over_budget": "BadRequestError",
        "busy": "RateLimitError",
        "internal_error": "InternalServerError",
        "timeout": "RequestTimeoutError",
    }.get(condition, "APIError")


def ai_sdk(condition, code):
    """What is tried again ends as an error of its own; what comes in mid-stream is no exception but a bare object."""
    if condition in IN_A_STREAM:
        return "Object"
    return "AI_RetryError" if condition in RETRIED else "AI_APICallError"


def client(name, package, auth, driver, table, **more):
    return Client(
        name=name, package=package, version=VERSIONS[package], auth=auth,
        command=("node", f"tests/clients/node/{driver}"), errors=table, **more,
    )


def aws_sdk(auth, *scenarios):
    table = errors(aws, attempts=3, **{name: Seen(*[aws(name, CODES[name])] * 2) for name in IN_A_STREAM})
    return client(
        "AWS SDK for JavaScript", "@aws-sdk/client-bedrock-runtime", auth, "aws.mjs", table, http="h2c", https="h2",
        scenarios=("chat", "stream", "invoke", "invoke-stream", *scenarios), converses=auth == "sigv4",
    )


def anthropic(auth):
    in_a_stream = {name: Seen("APIError", CODES[name]) for name in IN_A_STREAM}
    table = errors(by_status, attempts=3, shows_code=False, **in_a_stream)
    return client("Anthropic SDK for JavaScript", "@anthropic-ai/bedrock-sdk", auth, "anthropic.mjs", table)


def vercel(auth):
    in_a_stream = {name: Seen("Object", None) for name in IN_A_STREAM}
    # It tries again whatever is a 408, and does not look at `x-should-retry`.
    timeout = Seen("AI_RetryError", CODES["timeout"], 3)
    table = errors(ai_sdk, attempts=3, timeout=timeout, **in_a_stream)
    return client("AI SDK", "@ai-sdk/amazon-bedrock", auth, "vercel.mjs", table)


def claude_code():
    table = errors(
        # The driver lets it try once more, not ten times.
        lambda *_: "exit 1", attempts=2, shows_code=False,
        # It takes each 403 for AWS credentials that have expired, and fetches them anew.
        wrong_key=Seen("exit 1", None, 2),
        wrong_secret=Seen("exit 1", None, 2),
        # It asks a second time without a stream, in case only that was not found.
        unknown_model=Seen("exit 1", None, 2),
    )
    # After an error in mid-stream it asks a second time without a stream, and has its answer: see test_node.py.
    table = {name: seen for name, seen in table.items() if name not in IN_A_STREAM}
    return client("Claude Code", "@anthropic-ai/claude-code", "bearer", "claude.mjs", table, also_signs=True)


CLIENTS = [
    # Agents take no bearer token.
    aws_sdk("bearer"),
    aws_sdk("sigv4", "agent"),
    anthropic("bearer"),
    anthropic("sigv4"),
    vercel("bearer"),
    vercel("sigv4"),
    claude_code(),
]
