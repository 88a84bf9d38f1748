"""`dheera_ai key …` and `dheera_ai spend` as an operator types them: processes that talk to a running proxy."""

import csv
import io
import json
import os
import subprocess
import time
from decimal import Decimal

import pytest
from botocore.exceptions import ClientError
from conftest import DEADLINE_S, KEY, binary, client

CALL = dict(
    modelId="my-claude-model",
    messages=[{"role": "user", "content": [{"text": "Hello"}]}],
    inferenceConfig={"maxTokens": 100},
)


class Ran:
    def __init__(self, url, *arguments, master_key=KEY):
        environment = {"PATH": os.environ["PATH"], "DHEERA_AI_URL": url, "DHEERA_AI_MASTER_KEY": master_key}
        done = subprocess.run(
            [binary("dheera_ai"), *arguments], capture_output=True, text=True, env=environment, check=False
        )
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def own_proxy(start_proxy):
    """A proxy of its own: what is listed and summed is what these tests did."""
    return start_proxy(DHEERA_AI_MASTER_KEY=KEY)


@pytest.fixture(scope="module")
def run(own_proxy):
    """Runs a command that has to succeed, and gives what it wrote to stdout."""

    def run(*arguments):
        ran = Ran(own_proxy.url, *arguments)
        assert ran.code == 0, (arguments, ran.err)
        return ran.out

    return run


@pytest.fixture
def calls(own_proxy, simulator):
    """Makes a call with a key: its cost, once it is in the books, or the name of its exception."""

    def call(key):
        try:
            answer = client("bedrock-runtime", f"{own_proxy.url}/bedrock", key=key).converse(**CALL)
        except ClientError as error:
            return error.response["Error"]["Code"]
        header = answer["ResponseMetadata"]["HTTPHeaders"]
        deadline = time.monotonic() + DEADLINE_S
        # The log comes last, a moment after the answer.
        while not own_proxy.manage(f"/spend/logs?request_id={header['x-dheera-ai-call-id']}")["data"]:
            assert time.monotonic() < deadline, "the call is not booked"
            time.sleep(0.02)
        return Decimal(header["x-dheera-ai-response-cost"])

    return call


def shown(text):
    """What `key show` shows, by name."""
    return dict(line.split(None, 1) for line in text.splitlines())


def test_a_key_from_its_making_to_its_end(run, calls, own_proxy):
    made = Ran(own_proxy.url, "key", "create", "--alias", "ci", "--max-budget", "10", "--budget-duration", "1mo",
               "--models", "my-claude-model,nova-*", "--rpm", "600", "--max-parallel", "4", "--tags", "nightly,eu",
               "--metadata", '{"cost_center":"4711"}', "--set", "tpm_limit=100000")
    key = made.out.strip()
    # A script takes stdout for the key, so nothing else may be there; a human reads the rest.
    assert made.code == 0 and made.out == f"{key}\n" and key.startswith("sk-") and len(key) == 46
    assert "alias ci, budget 10, every 1mo" in made.err and "shown only once" in made.err and key not in made.err

    cost = calls(key)
    assert cost > 0
    by_every_name = [shown(run("key", "show", name)) for name in ("ci", key)]
    info = by_every_name[0]
    by_every_name += [shown(run("key", "show", info[name])) for name in ("key_id", "token")]
    assert all(other["key_id"] == info["key_id"] for other in by_every_name)
    assert (info["status"], info["max_budget"], info["rpm_limit"], info["tpm_limit"]) == ("active", "10", "600", "100000")
    assert (info["models"], info["tags"]) == ("my-claude-model, nova-*", "nightly, eu")
    assert Decimal(info["spend"]) == cost and key not in json.dumps(by_every_name)

    listed = run("key", "list")
    assert listed.startswith("KEY ID ") and info["key_id"] in listed and " ci " in listed and key not in listed
    [row] = json.loads(run("key", "list", "--json"))["keys"]
    assert (row["key_id"], row["key_alias"], row["max_budget"]) == (info["key_id"], "ci", 10)

    run("key", "update", "ci", "--max-budget", "25.000000001", "--clear", "rpm_limit,models")
    info = shown(run("key", "show", "ci"))
    assert info["max_budget"] == "25.000000001" and "rpm_limit" not in info and "models" not in info
    assert info["tpm_limit"] == "100000"

    run("key", "block", "ci")
    assert shown(run("key", "show", "ci"))["status"] == "blocked" and calls(key) == "AccessDeniedException"
    run("key", "unblock", "ci")
    assert calls(key) == cost

    renewed = run("key", "regenerate", "ci").strip()
    assert renewed != key and calls(key) == "AccessDeniedException" and calls(renewed) == cost
    graced = run("key", "regenerate", renewed, "--grace-period", "1h").strip()
    assert calls(renewed) == cost and calls(graced) == cost
    assert Decimal(shown(run("key", "show", "ci"))["spend"]) == 5 * cost

    deleted = Ran(own_proxy.url, "key", "delete", "ci")
    assert deleted.code == 0 and info["key_id"] in deleted.err
    assert calls(graced) == calls(renewed) == "AccessDeniedException"
    gone = Ran(own_proxy.url, "key", "show", "ci")
    assert (gone.code, gone.out) == (1, "") and "no key has this id or alias" in gone.err


def test_spend_is_what_the_calls_cost(run, calls):
    before = Decimal(json.loads(run("spend", "--json"), parse_float=Decimal)["total_spend"])
    keys = {alias: run("key", "create", "--alias", alias, "--tags", f"tag-{alias}").strip() for alias in ("ann", "ben")}
    costs = {"ann": calls(keys["ann"]), "ben": calls(keys["ben"]) + calls(keys["ben"])}

    report = json.loads(run("spend", "--by", "key", "--json"), parse_float=Decimal)
    by_alias = {line["key_alias"]: line for line in report["data"]}
    assert {alias: by_alias[alias]["spend"] for alias in costs} == costs
    assert by_alias["ben"]["requests"] == 2 and report["total_spend"] == before + sum(costs.values())

    # The dearest first, and what is cut off is said.
    aliases = [line["key_alias"] for line in report["data"] if line["key_alias"] in costs]
    assert aliases == ["ben", "ann"]
    first = run("spend", "--by", "tag", "--limit", "1")
    assert "more lines, see --limit" in first

    lines = list(csv.DictReader(io.StringIO(run("spend", "--by", "tag", "--csv"))))
    by_tag = {line["tag"]: Decimal(line["spend"]) for line in lines}
    assert all(by_tag[f"tag-{alias}"] == cost for alias, cost in costs.items())

    for by in ("day", "key", "model", "team", "user", "customer", "tag"):
        assert f": ${report['total_spend']}" in run("spend", "--by", by).splitlines()[-1], by


def test_a_reset_gives_a_budget_back_and_changes_no_report(run, calls, own_proxy):
    key = run("key", "create", "--alias", "reset", "--max-budget", "0.5").strip()
    cost = calls(key)
    before = [run("spend", "--by", by, "--csv") for by in ("key", "model", "team", "user", "tag")]
    own_proxy.manage(f"/key/{key}/reset_spend", {"reset_to": 0})
    info = shown(run("key", "show", "reset"))
    assert cost > 0 and Decimal(info["spend"]) == 0
    assert [run("spend", "--by", by, "--csv") for by in ("key", "model", "team", "user", "tag")] == before
    kinds = [entry["metadata"]["kind"] for entry in own_proxy.manage(f"/spend/logs?api_key={info['key_id']}")["data"]]
    assert kinds == ["request", "reset"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("key", "show", "nobody"), "no key has this id or alias"),
        (("key", "delete", "nobody"), "no key has this id or alias"),
        (("key", "create", "--team", "nobody"), "does not exist. Make it first with POST /team/new"),
        (("key", "create", "--budget-duration", "soon"), "budget_duration"),
        (("key", "create", "--set", "max_bugdet=1"), "Did you mean `max_budget`?"),
        (("key", "update", "nobody"), "nothing is to be changed"),
        (("spend", "--from", "2026-02-30"), "start_date"),
        (("spend", "--from", "2020-01-01"), "366"),
    ],
)
def test_what_cannot_be_done_is_said_on_stderr_with_code_1(arguments, says, own_proxy):
    ran = Ran(own_proxy.url, *arguments)
    assert (ran.code, ran.out) == (1, "") and says in ran.err, ran.err


@pytest.mark.parametrize(
    "arguments", [("key",), ("key", "create", "--max-budget", "ten"), ("key", "show"), ("spend", "--by", "moon")]
)
def test_a_wrong_command_line_is_code_2(arguments, own_proxy):
    ran = Ran(own_proxy.url, *arguments)
    assert ran.code == 2 and ran.out == "" and ran.err


def test_without_the_master_key_or_the_proxy_it_says_what_to_do(own_proxy):
    wrong = Ran(own_proxy.url, "key", "list", master_key="sk-wrong-0123456789abcdef")
    assert wrong.code == 1 and "key is not valid" in wrong.err and "sk-wrong" not in wrong.err
    without = Ran(own_proxy.url, "key", "list", master_key="")
    assert without.code == 1 and "DHEERA_AI_MASTER_KEY" in without.err
    nowhere = Ran("http://127.0.0.1:9", "key", "list")
    assert nowhere.code == 1 and "cannot be reached" in nowhere.err


def test_a_virtual_key_may_not_manage(run, own_proxy):
    key = run("key", "create").strip()
    ran = Ran(own_proxy.url, "key", "list", master_key=key)
    assert ran.code == 1 and "needs the master key" in ran.err and ran.out == ""
