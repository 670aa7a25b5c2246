"""The parts of `oracle task` that need no chain."""

from __future__ import annotations

import json
import stat
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.fields import ZERO_ADDRESS
from enclave_app.protocol.params import BooleanParam, DecimalParam, IntegerParam, ParamDomain
from oracle.cli.advice import ADVICE
from oracle.cli.common import typed_params
from oracle.cli.task import _writer
from oracle.client import _times
from tests.cli_kit import refusal

TABLE = pa.table({"malignant": [False, True], "radius": [12.5, 18.0]})


def read(path: Path) -> pa.Table:
    if path.suffix == ".csv":
        return pyarrow.csv.read_csv(path)
    if path.suffix == ".parquet":
        return pq.read_table(path)
    return pa.ipc.open_file(path.read_bytes()).read_all()


@pytest.mark.parametrize("name", ["r.csv", "r.parquet", "r.arrow"])
def test_a_result_file_holds_the_table_for_its_owner_alone(tmp_path: Path, name: str) -> None:
    _writer(tmp_path / name)(TABLE)
    assert read(tmp_path / name).equals(TABLE)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_text_becomes_what_the_agreed_domain_takes() -> None:
    domain = ParamDomain(
        params=(
            IntegerParam(type="integer", name="n", min=0, max=9),
            BooleanParam(type="boolean", name="b"),
            DecimalParam(type="decimal", name="d", min="0", max="1"),
        )
    )
    assert typed_params({"n": "7", "b": "true", "d": "0.5"}, domain) == {"n": 7, "b": True, "d": "0.5"}
    for wrong in ({"n": "7.5"}, {"b": "yes"}):
        with pytest.raises(Refused) as refused:
            typed_params(wrong, domain)
        assert refused.value.code == "params.value"


def test_a_request_without_a_configuration_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal("task", "request", "0x" + "00" * 32)["code"] == "config.missing"
    assert refusal("withdraw")["code"] == "config.missing"


def test_a_file_that_is_not_there_is_called_so(tmp_path: Path) -> None:
    deployment = dict.fromkeys(("agreementRegistry", "enclaveRegistry", "oracle", "streams", "audits"), ZERO_ADDRESS)
    (tmp_path / "d.json").write_text(json.dumps({**deployment, "chainId": "31337", "verifiers": {}, "firstBlock": 0}))
    config = tmp_path / "oracle.yaml"
    config.write_text("rpc: http://127.0.0.1:9\ndeployment: d.json\nstorage: [file:///tmp]\nbrokers: {}\n")
    error = refusal("task", "watch", tmp_path / "nothere.json", "--config", config)
    assert error["code"].startswith("digest.")
    assert "no such file" in error["message"]


def test_every_advice_is_about_an_error_that_a_contract_can_give() -> None:
    names = {
        error["name"]
        for contract in ("IAgreementRegistry", "IComputeOracle", "IFunctionAudits")
        for error in json.loads((resources.files("oracle") / "abi" / f"{contract}.json").read_text())["abi"]
        if error["type"] == "error"
    }
    assert set(ADVICE) <= names


def test_a_request_takes_its_time_from_blocks_unless_there_were_none_for_long() -> None:
    now = 1_790_000_000
    assert _times(now - 12, now, 60) == (now - 12, now + 60)
    assert _times(now + 500, now, 60) == (now + 500, now + 560)
    as_of, deadline = _times(now - 2 * 3600, now, 60)
    assert now - 3600 < as_of < now
    assert deadline == now + 60
