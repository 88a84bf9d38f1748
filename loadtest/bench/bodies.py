"""Request bodies of the scenarios: plain text of a size, a turn of a coding agent, a document."""

import base64
import json
import random

WORDS = ("the request goes through a proxy which signs it and sends it to a region where a model reads every word of "
         "it before the answer comes back as frames that nobody should hold up on their way").split()


def prose(size: int, seed: int = 1) -> str:
    """Text of exactly `size` characters; the same one for the same seed."""
    choice = random.Random(seed)
    parts, length = [], 0
    while length < size:
        parts.append(choice.choice(WORDS))
        length += len(parts[-1]) + 1
    return " ".join(parts)[:size].ljust(size, ".")


def encoded(body: dict) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def filled(size: int, make) -> bytes:
    """`make(n)` with the n that gives a body of `size` bytes, or the smallest one if that is longer."""
    empty = len(make(0))
    return make(max(0, size - empty))


def converse(size: int) -> bytes:
    def make(length):
        return encoded({
            "messages": [{"role": "user", "content": [{"text": prose(length)}]}],
            "inferenceConfig": {"maxTokens": 100},
        })

    return filled(size, make)


def document(size: int) -> bytes:
    """A Converse request whose document makes it about `size` bytes long."""

    def make(length):
        contents = random.Random(1).randbytes(length * 3 // 4 // 3 * 3)
        return encoded({
            "messages": [{"role": "user", "content": [
                {"document": {"format": "pdf", "name": "report",
                              "source": {"bytes": base64.b64encode(contents).decode()}}},
                {"text": "Summarise this document."}]}],
            "inferenceConfig": {"maxTokens": 100},
        })

    return filled(size, make)


def tool(number: int) -> dict:
    return {
        "name": f"Tool{number}",
        "description": prose(2400, seed=number),
        "input_schema": {
            "type": "object", "additionalProperties": False, "required": ["path"],
            "properties": {
                "path": {"type": "string", "description": prose(160, seed=number + 100)},
                "pattern": {"type": "string", "description": prose(160, seed=number + 200)},
                "limit": {"type": "number", "description": prose(120, seed=number + 300)},
            },
        },
    }


def exchange(number: int) -> list[dict]:
    """The model calls a tool and is given what the tool found, with quotes and newlines as code has them."""
    found = "\n".join(f'{line:6}\t    value["{prose(30, number * 40 + line)}"] = None' for line in range(40))
    use = f"toolu_{number:024}"
    return [
        {"role": "assistant", "content": [
            {"type": "text", "text": prose(200, seed=number)},
            {"type": "tool_use", "id": use, "name": "Tool1", "input": {"path": f"/src/module_{number}.py"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use, "content": found}]},
    ]


def claude_turn(size: int) -> bytes:
    """A turn of a coding agent on /invoke: a long system prompt, 20 tools, and a history of tool calls."""
    request = {
        "anthropic_version": "bedrock-2023-05-31",
        "anthropic_beta": ["claude-code-20250219"],
        "max_tokens": 1000,
        "metadata": {"user_id": "user_0123456789abcdef"},
        "system": [{"type": "text", "text": prose(14000), "cache_control": {"type": "ephemeral"}}],
        "tools": [tool(number) for number in range(20)],
        "messages": [{"role": "user", "content": [{"type": "text", "text": prose(2000)}]}],
    }
    number = 0
    while (length := len(encoded(request))) < size - 4000:
        number += 1
        request["messages"] += exchange(number)
    if length < size:
        request["messages"][0]["content"].append({"type": "text", "text": prose(size - length - 30)})
    return encoded(request)
