"""`oracle collateral`: against a stand-in of Intel's service."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from enclave_app.attesters.platform import DEVELOPMENT_FMSPC, DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from oracle.attestation import Collateral, parse_dcap, verify
from tests.cli_kit import answer, oracle, refusal
from tests.pcs_kit import Service, serving

NOW = int(time.time())
DAY = 86_400
NAME = f"sgx-{DEVELOPMENT_FMSPC.hex()}"


@dataclass
class Place:
    """A served development platform: where its files are, and the options that name service and root."""

    service: Service
    home: Path

    @property
    def there(self) -> tuple[object, ...]:
        return "--url", self.service.url, "--root-crl", self.service.root_crl_url, "--root", self.home / "root.der"

    @property
    def evidence(self) -> tuple[object, ...]:
        return "--evidence", self.home / "quote"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    authority = DevelopmentAuthority(NOW, days=400)
    (tmp_path / "root.der").write_bytes(authority.root_der)
    attester = SoftwareAttester(authority.issue_platform(), SoftwareEnclave(bytes(32), b"{}"))
    (tmp_path / "quote").write_bytes(asyncio.run(attester.quote(bytes(64))))
    service = Service(authority)
    service.publish(17, days=30)
    # The command runs an event loop of its own.
    ready, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        async with serving(service):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield Place(service, tmp_path)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


def status(*arguments: object, code: int = 0) -> dict[str, Any]:
    ran = oracle("collateral", "status", *arguments, "--json")
    assert ran.code == code, ran.stdout + ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_what_is_fetched_for_a_quote_verifies_it(place: Place) -> None:
    out = place.home / "collateral.json"
    made = answer("collateral", "fetch", *place.evidence, *place.there, "--out", out)
    assert (made["platform"], made["ca"], made["evaluation"], made["file"]) == (NAME, "platform", 17, str(out))
    parsed = parse_dcap(1, (place.home / "quote").read_bytes())
    collateral = Collateral.from_json(out.read_bytes())
    verified = verify(parsed, collateral, place.service.authority.root_der, NOW)
    assert made["valid_until"] == collateral.window().end >= verified.valid_until


def test_a_folder_is_filled_from_the_service_or_from_a_file(place: Place) -> None:
    named = ("--fmspc", DEVELOPMENT_FMSPC.hex(), *place.there)
    made = answer("collateral", "fetch", *named, "--cache", place.home / "cache")
    assert made["file"] == str(place.home / "cache" / f"{NAME}.json")
    place.service.lie = lambda path, found: (500, b"", {})
    offline = answer("collateral", "fetch", *named, "--offline", made["file"], "--cache", place.home / "other")
    assert Path(offline["file"]).read_bytes() == Path(made["file"]).read_bytes()
    error = refusal("collateral", "fetch", *named, "--cache", place.home / "cache")
    assert (error["code"], error["retry"]) == ("pcs.status", True)


def test_an_older_answer_replaces_nothing_and_says_so(place: Place) -> None:
    words = ("collateral", "fetch", *place.evidence, *place.there, "--cache", place.home / "cache")
    older = dict(place.service.published[17])
    place.service.publish(17, now=NOW + 60)
    newer = Path(answer(*words)["file"]).read_bytes()
    place.service.published[17] = older
    ran = oracle(*words)
    assert ran.code == 0
    assert "Older than what the folder held" in ran.stderr
    assert Path(answer(*words)["file"]).read_bytes() == newer


def test_collateral_of_another_root_is_not_written(place: Place) -> None:
    out = place.home / "collateral.json"
    url = place.there[:4]
    assert refusal("collateral", "fetch", *place.evidence, *url, "--out", out)["code"] == "collateral.signature"
    assert not out.exists()


def test_status_says_when_what_ends_and_fails_ahead_of_it(place: Place) -> None:
    file = answer("collateral", "fetch", *place.evidence, *place.there, "--cache", place.home / "cache")["file"]
    (found,) = status(place.home / "cache")["collateral"]
    assert (found["platform"], found["evaluation"]) == (NAME, 17)
    assert found["days_left"] == found["pieces"][0]["days_left"] == pytest.approx(30, abs=0.1)
    names = {each["name"] for each in found["pieces"]}
    lists = {"PCK CRL", "root CRL"}
    assert names == {"TCB info", "QE identity", *lists, "TCB signing certificate", "PCK CA", "root"}
    assert status(file, "--warn-days", 29)["ok"]
    assert not status(file, "--warn-days", 31, code=1)["ok"]
    ran = oracle("collateral", "status", file, "--warn-days", 31)
    assert ran.code == 1
    assert "ends in" in ran.stderr
    assert "TCB info" in ran.stdout


def test_status_tells_of_a_coming_evaluation_and_where_the_platform_will_stand(place: Place) -> None:
    answer("collateral", "fetch", *place.evidence, *place.there, "--cache", place.home / "cache")
    words = (place.home / "cache", "--ask", *place.evidence, *place.there)
    (found,) = status(*words)["collateral"]
    assert (found["offered"], found["standard"], found["coming"], found["tcb_status"]) == ([17], 17, None, "UpToDate")
    place.service.publish(18, "OutOfDate")
    place.service.early = 18
    (found,) = status(*words)["collateral"]
    coming = found["coming"]
    assert (found["offered"], found["standard"], found["tcb_status"]) == ([18, 17], 17, "UpToDate")
    assert (coming["evaluation"], coming["tcb_status"]) == (18, "OutOfDate")
    assert coming["changed_at"] == pytest.approx(NOW, abs=DAY)
    assert coming["standard_from"] == pytest.approx(NOW + 365 * DAY, abs=2 * DAY)
    ran = oracle("collateral", "status", *words)
    assert "OutOfDate" in ran.stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--out", "x"), 2),
        (("--fmspc", "00", "--out", "x"), 1),
        (("--fmspc", "zz", "--out", "x"), 2),
        (("--fmspc", "00" * 6), 2),
        (("--fmspc", "00" * 6, "--out", "x", "--cache", "y"), 2),
    ],
)
def test_a_wrong_command_line_fetches_nothing(words: tuple[str, ...], code: int, place: Place) -> None:
    assert oracle("collateral", "fetch", *words, *place.there).code == code
    assert not place.service.asked


def test_nothing_there_is_no_status(tmp_path: Path) -> None:
    assert refusal("collateral", "status", tmp_path)["code"] == "collateral.none"
