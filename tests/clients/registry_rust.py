"""The AWS SDK for Rust, see registry.py. What it does is written down as it was seen with the versions of Cargo.toml."""

import tomllib
from pathlib import Path

from registry import CODES, Client, Seen, errors

FOLDER = Path(__file__).with_name("rust-sdk")
PACKAGE = "aws-sdk-bedrockruntime"
DEPENDENCIES = tomllib.loads((FOLDER / "Cargo.toml").read_text())["dependencies"]
IN_A_STREAM = ("exception_frame", "cut_between_frames", "cut_in_frame")


def variant(_condition, code):
    """The variant of the operation's error; names that the operation does not model are `Unhandled`."""
    return "Unhandled" if code == CODES["over_budget"] else code[0].upper() + code[1:]


def sdk(auth, *scenarios):
    # Exceptions in mid-stream have their class, but no code.
    in_a_stream = {name: Seen(variant(name, CODES[name]), None) for name in IN_A_STREAM}
    return Client(
        name="AWS SDK for Rust", package=PACKAGE, version=DEPENDENCIES[PACKAGE]["version"].lstrip("="),
        auth=auth, command=("target/debug/rust-sdk-client",), https="h2",
        errors=errors(variant, attempts=3, **in_a_stream),
        scenarios=("chat", "stream", "invoke", "invoke-stream", *scenarios), converses=auth == "sigv4",
    )


CLIENTS = [
    # Agents take no bearer token.
    sdk("bearer"),
    sdk("sigv4", "agent"),
]
