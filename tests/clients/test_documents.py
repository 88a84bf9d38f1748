"""The programs and commands of the documents run as they stand; only host, port and key are replaced. And the table of
clients says what the registry says.
"""

import json
import os
import re
import subprocess
import sys
import urllib.error

import documents
import pytest
from conftest import DEADLINE_S, KEY, OLD_BOTO3, ROOT, binary
from registry import clients

PASSED_ON = ("PATH", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED", "NO_PROXY")
SDKS = ROOT / ".venv-sdks/bin/python"
NODE = ROOT / "tests/clients/node"
COMMANDS = f"{ROOT / '.venv-boto3-1.43/bin'}:{NODE / 'node_modules/.bin'}"
ONCE = pytest.mark.skipif(OLD_BOTO3, reason="has nothing to do with boto3, and runs beside its newest version")
# How the table of clients puts what the registry says.
TRIED = {"chat": "chat", "stream": "streams", "invoke": "InvokeModel", "agent": "agents"}


@pytest.fixture
def environment(proxy, dev_cert):
    """What a program of the documents finds: a virtual key, its key pair, and whom to trust."""
    key = proxy.manage("/key/generate", {"sigv4": True})
    pair = {name.upper(): key[name] for name in ("aws_access_key_id", "aws_secret_access_key")}
    kept = {name: os.environ[name] for name in PASSED_ON}
    return kept | dev_cert["trust"] | pair | {"DHEERA_AI_MASTER_KEY": KEY, "PROXY_KEY": key["key"]}


def run(command, folder, environment):
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, cwd=folder,
        timeout=DEADLINE_S, check=False,
    )


def addressed(where, text, proxy):
    replaced = text
    for scheme, url in (("http", proxy.url), ("https", proxy.secure_url)):
        replaced = re.sub(rf"\b{scheme}://(?:127\.0\.0\.1|localhost):4000\b", url, replaced)
    assert replaced != text, f"no address to replace in {where}"
    return replaced


def of_boto3(text):
    return re.search(r"^import boto3$", text, re.MULTILINE) is not None


PROGRAMS = [(where, text) for where, text in documents.programs("python") if of_boto3(text) or not OLD_BOTO3]


@pytest.mark.parametrize("where, program", PROGRAMS, ids=[where for where, _ in PROGRAMS])
def test_a_python_program_of_the_documents_works(where, program, proxy, simulator, environment, tmp_path):
    interpreter = sys.executable if of_boto3(program) else SDKS
    done = run([interpreter, "-c", addressed(where, program, proxy)], tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "it shows nothing"
    assert simulator.requests(), "it called nothing"


SCRIPTS_OF_NODE = documents.programs("js")


@ONCE
@pytest.mark.parametrize("where, program", SCRIPTS_OF_NODE, ids=[where for where, _ in SCRIPTS_OF_NODE])
def test_a_javascript_program_of_the_documents_works(where, program, proxy, simulator, environment):
    command = ["node", "--input-type=module", "--eval", addressed(where, program, proxy)]
    simulator.demand({"text": "Good morning"})
    done = run(command, NODE, environment)
    assert done.returncode == 0, done.stderr
    assert "Good morning" in done.stdout, done.stdout


COMMANDS_OF_CLIENTS = documents.commands_of_clients()


@ONCE
@pytest.mark.parametrize("where, text", COMMANDS_OF_CLIENTS, ids=[where for where, _ in COMMANDS_OF_CLIENTS])
def test_a_client_s_command_of_the_documents_works(where, text, proxy, simulator, environment, tmp_path):
    environment |= {"PATH": f"{COMMANDS}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    # Claude Code would call home.
    environment |= {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}
    command = ["bash", "-euo", "pipefail", "-c", addressed(where, text, proxy)]
    simulator.demand({"text": "Good morning"})
    done = run(command, tmp_path, environment)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "Good morning" in done.stdout, done.stdout


@ONCE
def test_the_way_to_https_of_the_documents_can_be_gone(tmp_path):
    # The one that starts a proxy is checked instead.
    text = documents.commands_of_https().replace("--config config.yaml", f"check --config {ROOT / 'conf/demo.yaml'}")
    assert " check " in text
    environment = {"PATH": f"{binary('dheera_ai').parent}:{os.environ['PATH']}", "DHEERA_AI_MASTER_KEY": KEY}
    done = run(["bash", "-euo", "pipefail", "-c", text], tmp_path, environment)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert (tmp_path / "dev-cert/ca.pem").is_file()


@ONCE
def test_the_table_of_https_names_the_variables_that_dev_cert_prints(dev_cert):
    text = (ROOT / "docs/clients.md").read_text()
    assert set(re.findall(r"`(\w+)=dev-cert/ca\.pem`", text)) == set(dev_cert["trust"])


def test_the_rust_program_of_the_documents_calls_what_the_driver_calls():
    """The driver is built and run; see test_sdks.py."""
    driver = (ROOT / "tests/clients/rust-sdk/src/main.rs").read_text()
    [(_, program)] = documents.programs("rust")
    calls = re.findall(r"\.?[\w:]+\(", program)
    assert len(calls) >= 5 and [call for call in calls if call not in driver] == []


def ways_of_keys(one):
    if one.auth == "bearer":
        yield "bearer token (https)" if one.https_only else "bearer token"
    else:
        yield "access key id"
    if one.signs:
        yield "key pair"


def test_the_table_of_clients_says_what_the_registry_says():
    registered = {}
    for one in clients():
        transport = one.http if one.http == one.https else f"{one.http}, {one.https}"
        row = registered.setdefault((one.name, one.version), (transport, set(), set()))
        assert row[0] == transport, one.id
        row[1].update(ways_of_keys(one))
        row[2].update(["conversations"] if one.converses else [])
        row[2].update(TRIED[scenario.removesuffix("-stream")] for scenario in one.scenarios)
    shown = {
        (name, version): (transport, set(keys.split(", ")), set(tried.split(", ")))
        for name, version, transport, keys, tried in documents.clients()
    }
    assert shown == registered
    assert len(documents.clients()) == len(shown)


CONFIGURATIONS = documents.configurations()


@pytest.mark.parametrize("where, text", CONFIGURATIONS, ids=[where for where, _ in CONFIGURATIONS])
def test_a_configuration_of_the_documents_is_valid(where, text, tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text(text)
    command = [binary("dheera_ai"), "check", "--config", path]
    # What an operator has set where the text says nothing of it.
    environment = {"DHEERA_AI_MASTER_KEY": KEY}
    if "AWS_REGION" not in text:
        environment["AWS_REGION"] = "us-west-2"
    if "REDIS_URL" in text:
        environment["REDIS_URL"] = "redis://127.0.0.1"
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, (where, done.stdout, done.stderr)
    assert "warning" not in done.stderr, done.stderr


SCRIPTS = documents.scripts()


@pytest.fixture(scope="module")
def fresh_proxy(start_full_proxy):
    """A proxy without keys, as a reader of the documents has it."""
    return start_full_proxy()


@pytest.mark.parametrize("where, text", SCRIPTS, ids=[where for where, _ in SCRIPTS])
def test_the_command_line_of_the_documents_works(where, text, fresh_proxy):
    script = re.sub(r"\b127\.0\.0\.1:4000\b", fresh_proxy.url.removeprefix("http://"), text)
    environment = {
        "PATH": f"{ROOT / 'target/debug'}:{os.environ['PATH']}",
        "DHEERA_AI_URL": fresh_proxy.url,
        "DHEERA_AI_MASTER_KEY": KEY,
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True, text=True, env=environment, cwd=ROOT, timeout=DEADLINE_S, check=False,
    )
    assert done.returncode == 0, (where, done.stderr)
    assert "Exception" not in done.stdout and "message" not in done.stdout, done.stdout


@pytest.mark.parametrize("kind", ["key", "team", "user", "customer", "tag", "budget"])
def test_every_field_of_the_management_api_is_documented(kind, proxy):
    path = "/key/generate" if kind == "key" else f"/{kind}/new"
    with pytest.raises(urllib.error.HTTPError) as refused:
        proxy.manage(path, {"zzzzzzzzzzzzzzzz": 1})
    listed = json.load(refused.value)["message"].partition("There are ")[2].rstrip(".").split(", ")
    text = (ROOT / "docs/keys.md").read_text()
    assert len(listed) > 10 and [field for field in listed if f"`{field}`" not in text] == []


def test_links_lead_somewhere():
    assert [(document, str(path)) for document, path in documents.links() if not path.exists()] == []
