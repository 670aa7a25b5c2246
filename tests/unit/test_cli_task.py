"""The parts of `oracle task` that need no chain."""

from __future__ import annotations

import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.params import BooleanParam, DecimalParam, IntegerParam, ParamDomain
from oracle.cli.common import typed_params
from oracle.cli.task import _writer
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
