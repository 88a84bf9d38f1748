"""The Python programs of the documents run as they stand; only host, port and key are replaced."""

import json
import os
import re
import subprocess
import sys
import urllib.error

import documents
import pytest
from conftest import DEADLINE_S, KEY, OLD_BOTO3, ROOT, binary

PROGRAMS = documents.programs()


@pytest.mark.parametrize("where, program", PROGRAMS, ids=[where for where, _ in PROGRAMS])
def test_a_program_of_the_documents_works(where, program, proxy, simulator, tmp_path):
    replaced = re.sub(r"\b(?:127\.0\.0\.1|localhost):4000\b", proxy.url.removeprefix("http://"), program)
    assert replaced != program, f"no address to replace in {where}"
    kept = ("PATH", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED", "NO_PROXY")
    environment = {name: os.environ[name] for name in kept}
    environment |= {"DHEERA_AI_MASTER_KEY": KEY, "PROXY_KEY": proxy.manage("/key/generate", {})["key"]}
    done = subprocess.run(
        [sys.executable, "-c", replaced],
        capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=DEADLINE_S, check=False,
    )
    if "needs boto3 before 1.44" in program and not OLD_BOTO3:
        assert done.returncode != 0 and "Bearer authorization requires an HTTPS endpoint" in done.stderr, done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "it shows nothing"
    assert simulator.requests(), "it called nothing"


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
def fresh_proxy(start_proxy):
    """A proxy without keys, as a reader of the documents has it."""
    return start_proxy(DHEERA_AI_MASTER_KEY=KEY)


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
