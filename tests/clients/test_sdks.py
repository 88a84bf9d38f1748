"""Every client, unmodified and with its default settings, under every condition: it must not notice that Bedrock is not
at the other end, and it must send as many requests as it is registered with.

`registry.py` lists the clients and what they make of errors; `matrix.py` runs them once, and the tests look at what
came of it.
"""

import json
import os
import time

import pytest
from conftest import DEADLINE_S
from matrix import CONDITIONS, RECOVERIES, SUCCESSES, VERSIONS, Matrix, meets
from registry import CODES, PROMPT, clients

PASSED_ON = ("PATH", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED", "NO_PROXY")
CELLS = list(Matrix(clients()).cells.values())


def cells(*conditions):
    """The cells of some conditions, as a parameter."""
    of = [one for one in CELLS if one.name in conditions]
    return pytest.mark.parametrize("one", [one.id for one in of])


@pytest.fixture(scope="module")
def matrix(request, start_full_proxy, dev_cert, _simulator, tmp_path_factory):
    """The cells of the selected tests after their run. The proxy has ended, so that every record is written."""
    matrix, folder = Matrix(clients()), tmp_path_factory.mktemp("drivers")
    matrix.keep({test.callspec.params.get("one") for test in request.session.items if hasattr(test, "callspec")})
    (folder / "config.yaml").write_text(json.dumps(matrix.configuration()))
    _simulator.forget()
    _simulator.control("DELETE", "/billed")
    proxy = start_full_proxy(folder / "config.yaml")
    environment = {name: os.environ[name] for name in PASSED_ON} | {"HOME": str(folder)} | dev_cert["trust"]
    matrix.run(proxy, _simulator, dev_cert["files"], environment, folder)
    matrix.bills = _simulator.control("GET", "/_sim/billed/rows")
    matrix.spends = {one.id: spent(proxy, one) for one in matrix.cells.values() if one.name in SUCCESSES}
    assert proxy.stop() == 0
    matrix.account(proxy.lines)
    _simulator.forget()
    return matrix


def spent(proxy, cell):
    """What a cell's key has spent, once nothing is reserved for it any more."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        info = proxy.manage(f"/key/info?key={cell.key['key_id']}")["info"]
        if not info["reserved"]:
            return info["spend"]
        assert time.monotonic() < deadline, info
        time.sleep(0.02)


@pytest.fixture
def cell(matrix, one):
    cell = matrix.cells[one]
    assert cell.driver_status == 0, cell.answer
    return cell


@cells(*SUCCESSES)
def test_an_answer_is_whole_and_costs_what_bedrock_bills(cell, matrix):
    answer = cell.answer
    assert "error" not in answer, answer
    [record] = cell.records
    assert (record["status"], record.get("reason")) == (200, None), record
    if cell.condition.scenario == "agent":
        assert answer["text"] and answer["events"] >= 1
        return
    assert PROMPT in answer["text"]
    assert answer["events"] >= (2 if "stream" in cell.condition.scenario else 1)
    [bill] = [row for row in matrix.bills if row["model"] == cell.model]
    assert answer["usage"] == {name: bill["usage"][name] for name in ("input", "output")}
    assert 0 < bill["cost_nano_usd"] == record["cost_nano_usd"]
    assert matrix.spends[cell.id].scaleb(9) == bill["cost_nano_usd"]


@cells(*VERSIONS)
def test_a_client_speaks_the_version_of_http_that_is_documented(cell):
    assert PROMPT in cell.answer.get("text", ""), cell.answer
    assert cell.heard == {cell.client.https if cell.https() else cell.client.http}


@cells(*RECOVERIES)
def test_a_failure_that_passes_goes_unnoticed(cell):
    assert "error" not in cell.answer and PROMPT in cell.answer["text"], cell.answer
    assert len(cell.records) == cell.client.recovers_after
    assert [record["status"] for record in cell.records][-1] == 200


@cells(*CODES)
def test_an_error_is_raised_as_what_it_is_and_tried_again_only_where_that_helps(cell):
    expected = cell.client.errors[cell.name]
    assert "error" in cell.answer, cell.answer
    error = cell.answer["error"]
    seen = error["class"], error["code"], len(cell.records)
    assert seen == (expected.name, expected.code, expected.requests), error
    if cell.nameless:
        assert {record["reason"] for record in cell.records} == {cell.nameless}
    if cell.name.startswith("cut"):
        assert {record["reason"] for record in cell.records} == {"upstream_broke"}, cell.records
    else:
        assert {record.get("error_type") for record in cell.records} == {CODES[cell.name]}, cell.records
    if cell.condition.fault and cell.condition.fault["kind"] == "error":
        assert cell.condition.fault["message"] in error["message"]


def test_no_client_is_excused_from_a_condition_of_answers_in_one_piece():
    """Nor from one of streams, except where registry_*.py says why it cannot meet it."""
    assert set(CODES) | set(SUCCESSES) | set(VERSIONS) | set(RECOVERIES) == set(CONDITIONS)
    for one in clients():
        assert "chat" in one.scenarios and set(one.errors) <= set(CODES), one.id
        whole = [name for name in CODES if CONDITIONS[name].scenario == "chat"]
        missing = [name for name in whole if not meets(one, name) and (one.signs or not CONDITIONS[name].pair)]
        assert missing == [], one.id
