"""Every client that the suite runs against the proxy: how its driver is started, and what it makes of each condition.

A driver is a small program on the unmodified client with default settings. It reads jobs from standard input, one JSON
object a line, and answers each with one JSON line on standard output before it reads the next; at the end of its input
it ends with status 0.

    job     {"scenario": "chat", "url": "http://127.0.0.1:4000/bedrock", "key": "sk-…", "model": "…",
             "auth": "bearer" or "sigv4", "secret": "…" (with sigv4)}
    answer  {"text": "…", "events": 9, "usage": {"input": 12, "output": 34}}
       or   {"error": {"class": "ThrottlingException", "code": "ThrottlingException" or null, "status": 429 or null,
             "message": "…"}, "text_so_far": "…"}

Each job gets a client object of its own, so that nothing of one job (retry quotas, connections) shows in the next. The
scenarios are `chat` (one answer), `stream` (the same as a stream, read to its end; `events` counts what the SDK handed
out), `invoke` and `invoke-stream` (InvokeModel, where the client has it beside Converse) and `agent` (InvokeAgent).
All of them say PROMPT. `auth` is how the client is told to send the key: as bearer token, or as access key id, with
which it signs. To trust a certificate it has the variables that `dheera_ai dev-cert` prints.
"""

import importlib
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PROMPT = "Tell me a story"

# What AWS calls the error of each condition; the proxy's answers and Bedrock's own alike.
CODES = {
    "wrong_key": "AccessDeniedException",
    "wrong_secret": "AccessDeniedException",
    "unknown_model": "ResourceNotFoundException",
    "invalid": "ValidationException",
    "over_budget": "ServiceQuotaExceededException",
    "busy": "ThrottlingException",
    "internal_error": "InternalServerException",
    "timeout": "ModelTimeoutException",
    "exception_frame": "throttlingException",
    "cut_between_frames": "serviceUnavailableException",
    "cut_in_frame": "serviceUnavailableException",
}
# These are tried again by every SDK, up to its own number of attempts.
RETRIED = ("busy", "internal_error")


@dataclass(frozen=True)
class Seen:
    """What an application sees of an error, and how many requests the proxy saw of it."""

    name: str  # the exception's class
    code: str | None  # AWS's name of the error, where the client shows one
    requests: int = 1


@dataclass(frozen=True)
class Client:
    name: str  # as in docs/clients.md
    package: str  # as the registry it comes from calls it
    version: str
    auth: str  # "bearer" or "sigv4"
    command: tuple[str, ...]  # of the driver, run in the project's root
    errors: dict[str, Seen]  # by condition: all of CODES that the client can meet
    scenarios: tuple[str, ...] = ("chat", "stream")
    converses: bool = False  # by a test of its own, over InvokeModelWithBidirectionalStream
    http: str = "HTTP/1.1"  # what it speaks to http:// URLs
    https: str = "HTTP/1.1"
    https_only: bool = False  # keeps its key from http:// URLs
    also_signs: bool = False  # can sign, too, and only that is tried
    # Requests of a chat that Bedrock throttles once, and of one to which it is unavailable once.
    recovers_after: int = 2
    environment: dict[str, str] = field(default_factory=dict)  # beside PATH; nothing else is passed on

    @property
    def signs(self):
        return self.auth == "sigv4" or self.also_signs

    @property
    def id(self):
        return f"{self.name}-{self.version}-{self.auth}".replace(" ", "-")


def errors(name, *, attempts, shows_code=True, **other):
    """The usual table: `name` makes the class out of the condition and AWS's code."""
    usual = {
        condition: Seen(name(condition, code), code if shows_code else None, attempts if condition in RETRIED else 1)
        for condition, code in CODES.items()
    }
    return usual | other


def clients():
    """All of them, in the order of docs/clients.md."""
    modules = ("registry_python", "registry_node", "registry_rust")
    return [client for module in modules for client in importlib.import_module(module).CLIENTS]
