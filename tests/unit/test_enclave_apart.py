"""R6: where nothing keeps function code from the quote interface, only functions without code of their own run."""

from __future__ import annotations

import pytest

from enclave_app.agreed import check_apart
from enclave_app.attesters.factory import KINDS
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.structs import FunctionKind


@pytest.mark.parametrize("attester", KINDS)
@pytest.mark.parametrize("kind", FunctionKind)
def test_a_kind_of_function_runs_where_it_is_kept_apart(attester: str, kind: FunctionKind) -> None:
    if attester in ("gramine", "occlum") and kind not in (FunctionKind.SQL, FunctionKind.WASM):
        with pytest.raises(Refused) as refused:
            check_apart(kind, attester)
        assert refused.value.code == "task.sandbox"
    else:
        check_apart(kind, attester)


def test_a_kind_that_nobody_knows_does_not_run_under_a_library_os() -> None:
    with pytest.raises(Refused):
        check_apart(9, "occlum")
