"""Which agreements' documents the enclave keeps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from enclave_app import agreed
from enclave_app.agreed import MOST_KNOWN, MOST_KNOWN_BYTES, KnownMaterials, Materials
from enclave_app.fetch import Storage
from enclave_app.protocol.wire import TaskBody


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Agreements in the order in which their documents were fetched: a number and a size, both from the body."""
    order: list[int] = []

    async def fetch(body: Any, storage: Any) -> Any:
        order.append(body.request.agreement_id)
        return SimpleNamespace(size=body.size)

    monkeypatch.setattr(agreed, "fetch_materials", fetch)
    return order


@pytest.fixture
def known(fetched: list[int]) -> KnownMaterials:
    return KnownMaterials(cast(Storage, SimpleNamespace(check_bases=lambda bases: None)))


async def ask(known: KnownMaterials, number: int, size: int = 1) -> Materials:
    body: Any = SimpleNamespace(request=SimpleNamespace(agreement_id=number), storage=(), size=size)
    return await known.of(cast(TaskBody, body))


async def test_the_same_agreement_is_the_same_documents(known: KnownMaterials, fetched: list[int]) -> None:
    first = await ask(known, 1)
    assert await ask(known, 2) is not first
    assert await ask(known, 1) is first
    assert fetched == [1, 2]


async def test_the_least_recently_asked_for_goes_first(known: KnownMaterials, fetched: list[int]) -> None:
    for number in [*range(MOST_KNOWN), 0, MOST_KNOWN]:
        await ask(known, number)
    before = len(fetched)
    for number in (0, 2, 1):
        await ask(known, number)
    assert fetched[before:] == [1]


async def test_large_documents_push_others_out_and_one_that_is_too_large_is_not_kept(
    known: KnownMaterials, fetched: list[int]
) -> None:
    half = MOST_KNOWN_BYTES // 2
    for number, size in ((1, half), (2, half), (1, half), (2, half)):
        await ask(known, number, size)
    assert fetched == [1, 2]
    await ask(known, 3, 1)  # one byte more than there is room for
    await ask(known, 2, half)
    await ask(known, 1, half)
    assert fetched == [1, 2, 3, 1]
    assert (await ask(known, 4, MOST_KNOWN_BYTES + 1)).size == MOST_KNOWN_BYTES + 1
    await ask(known, 4, MOST_KNOWN_BYTES + 1)
    assert fetched[-2:] == [4, 4]
