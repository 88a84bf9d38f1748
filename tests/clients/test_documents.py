"""The Python programs of the documents run as they stand; only host, port and key are replaced."""

import os
import re
import subprocess
import sys

import documents
import pytest
from conftest import DEADLINE_S, KEY, OLD_BOTO3, binary

PROGRAMS = documents.programs()


@pytest.mark.parametrize("where, program", PROGRAMS, ids=[where for where, _ in PROGRAMS])
def test_a_program_of_the_documents_works(where, program, proxy, simulator, tmp_path):
    replaced = re.sub(r"\b(?:127\.0\.0\.1|localhost):4000\b", proxy.url.removeprefix("http://"), program)
    assert replaced != program, f"no address to replace in {where}"
    kept = ("PATH", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED", "NO_PROXY")
    environment = {name: os.environ[name] for name in kept} | {"DHEERA_AI_MASTER_KEY": KEY}
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
    done = subprocess.run(command, capture_output=True, text=True, env={"DHEERA_AI_MASTER_KEY": KEY}, check=False)
    assert done.returncode == 0, (where, done.stdout, done.stderr)
    assert "warning" not in done.stderr, done.stderr


def test_links_lead_somewhere():
    assert [(document, str(path)) for document, path in documents.links() if not path.exists()] == []
