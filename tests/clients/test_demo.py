"""`make demo` from its command on: what a newcomer sees first must work, and must clean up however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from conftest import DEADLINE_S, ROOT, binary

COMMAND = [sys.executable, ROOT / "scripts/demo.py", "--proxy", binary("dheera_ai"), "--simulator", binary("bedrock-sim")]
# What a newcomer's shell may hold, and what must not get in the way.
SHELL = {
    "AWS_PROFILE": "no-such-profile",
    "AWS_BEARER_TOKEN_BEDROCK": "real-token",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "DHEERA_AI_MASTER_KEY": "sk-somebody-elses",
    "http_proxy": "http://127.0.0.1:9",
}


def children(process):
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [Path("/proc", pid) for pid in pids]


def test_it_shows_answers_tokens_costs_a_budget_and_metrics(tmp_path):
    done = subprocess.run(
        COMMAND, capture_output=True, text=True, env=os.environ | SHELL | {"TMPDIR": str(tmp_path)},
        timeout=DEADLINE_S, check=False,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.count("\n== ") == 12 and done.stdout.count("You said: ") == 6
    assert done.stdout.count("cost:  $0.") == 6 and "cost:  not known (unpriced_model)" in done.stdout
    # A virtual key: at least one call is served, and what the budget does not cover is refused once and for all.
    assert "call 1: cost $0.000" in done.stdout and "(x-dheera-ai-key-spend)" in done.stdout
    assert ": ServiceQuotaExceededException: " in done.stdout and "retries by boto3: 0" in done.stdout
    assert "== dheera_ai key list" in done.stdout and "== dheera_ai spend --by key" in done.stdout
    assert done.stdout.count(" newcomer ") >= 2
    assert "dheera_ai_cost_nano_usd_total{" in done.stdout and "dheera_ai_denied_total{" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("Done.")
    assert list(tmp_path.iterdir()) == [], "it left files behind"


def test_interrupted_it_leaves_nothing_running(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as demo:
        try:
            for line in demo.stdout:
                if line.startswith("== ConverseStream"):
                    break
            started = children(demo)
            assert len(started) == 2 and all(path.exists() for path in started)
            demo.send_signal(signal.SIGINT)
            _, complaints = demo.communicate(timeout=DEADLINE_S)
        finally:
            demo.kill()
    assert demo.returncode == 130 and "Traceback" not in complaints, complaints
    assert not any(path.exists() for path in started)
    assert list(tmp_path.iterdir()) == [], "it left files behind"
