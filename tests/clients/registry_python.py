"""The Python clients, see registry.py. What they do is written down as it was seen with these versions."""

from registry import CODES, Client, Seen, errors

DRIVERS = "tests/clients/python"


IN_A_STREAM = ("exception_frame", "cut_between_frames", "cut_in_frame")
OF_BOTO3 = ("chat", "stream", "invoke", "invoke-stream", "agent")


def botocore(condition, code):
    """An exception of the service's client; what comes in the middle of a stream is an EventStreamError."""
    return "EventStreamError" if condition in IN_A_STREAM else code


def by_status(condition, _code):
    """How the anthropic and openai packages name exceptions."""
    names = {
        "wrong_key": "PermissionDeniedError",
        "wrong_secret": "PermissionDeniedError",
        "unknown_model": "NotFoundError",
        "invalid": "BadRequestError",
        "over_budget": "BadRequestError",
        "busy": "RateLimitError",
        "internal_error": "InternalServerError",
    }
    return names.get(condition, "APIStatusError")


def boto3(version, auth, environment, attempts, scenarios=OF_BOTO3, **more):
    return Client(
        name="boto3", package="boto3", version=version, auth=auth,
        command=(f"{environment}/bin/python", f"{DRIVERS}/drive_boto3.py"),
        errors=errors(botocore, attempts=attempts), scenarios=scenarios, **more,
    )


def aws_cli(auth):
    table = errors(lambda *_: "Refused", attempts=5)  # a line on standard error
    return Client(
        name="AWS CLI", package="awscli", version="1.46.3", auth=auth,
        command=(".venv-boto3-1.43/bin/python", f"{DRIVERS}/drive_aws_cli.py"), scenarios=("chat", "invoke"),
        # It has no commands for streams.
        errors={condition: seen for condition, seen in table.items() if condition not in IN_A_STREAM},
    )


def anthropic(auth):
    return Client(
        name="Anthropic SDK for Python", package="anthropic", version="2.12.0", auth=auth,
        command=(".venv-sdks/bin/python", f"{DRIVERS}/drive_anthropic.py"),
        errors=errors(
            by_status, attempts=3, shows_code=False, timeout=Seen("RequestTimeoutError", None),
            **{condition: Seen("APIStatusError", CODES[condition]) for condition in IN_A_STREAM},
        ),
    )


def langchain(auth, **more):
    return Client(
        name="LangChain", package="langchain-aws", version="1.9.1", auth=auth,
        command=(".venv-sdks/bin/python", f"{DRIVERS}/drive_langchain.py"), errors=errors(botocore, attempts=3),
        scenarios=("chat", "stream", "invoke", "invoke-stream"), **more,
    )


def openai():
    table = errors(
        by_status, attempts=3, shows_code=False,
        # A stream of server-sent events has no exception frames: the connection breaks, and says so.
        **{condition: Seen("APIConnectionError", None) for condition in ("cut_between_frames", "cut_in_frame")},
    )
    del table["exception_frame"]
    return Client(
        name="openai", package="openai", version="3.54.0", auth="bearer",
        command=(".venv-sdks/bin/python", f"{DRIVERS}/drive_openai.py"), errors=table,
    )


CLIENTS = [
    boto3("1.44.5", "sigv4", ".venv", attempts=3),
    # Agents take no bearer token; only the first version that knew bearer tokens sent them one.
    boto3("1.44.5", "bearer", ".venv", attempts=3, scenarios=OF_BOTO3[:-1], https_only=True),
    # Until 1.43 its default retry mode was `legacy`, with five attempts.
    boto3("1.43.62", "sigv4", ".venv-boto3-1.43", attempts=5),
    boto3("1.43.62", "bearer", ".venv-boto3-1.43", attempts=5, scenarios=OF_BOTO3[:-1]),
    boto3("1.39.0", "sigv4", ".venv-boto3-1.39", attempts=5),
    boto3("1.39.0", "bearer", ".venv-boto3-1.39", attempts=5),
    aws_cli("sigv4"),
    aws_cli("bearer"),
    anthropic("bearer"),
    anthropic("sigv4"),
    langchain("sigv4"),
    # It calls through boto3 1.44.
    langchain("bearer", https_only=True),
    openai(),
]
