"""The software quoting enclave: what it mints, and how it is configured."""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import dcap_qvl
import pytest

from enclave_app.attesters.base import PlatformError, ReportDataError, UnknownAttester
from enclave_app.attesters.dcap_format import ReportBody
from enclave_app.attesters.factory import attester_from_config
from enclave_app.attesters.platform import DevelopmentAuthority, Platform, main
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from enclave_app.protocol.measurement import sgx_measurement, tdx_measurement

NOW = 1_800_000_000
ENCLAVE = SoftwareEnclave(mrenclave=bytes(range(32)), launch_config=b"configuration")


def test_minted_quote_is_accepted_by_dcap_qvl_under_its_root_and_refused_under_intels() -> None:
    authority = DevelopmentAuthority(NOW)
    platform = authority.issue_platform()
    quote = asyncio.run(SoftwareAttester(platform, ENCLAVE).quote(bytes(range(64))))
    collateral = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(authority.collateral()))

    report = dcap_qvl.verify_with_root_ca(quote, collateral, authority.root_der, NOW)

    assert report.status == "UpToDate"
    assert report.ppid == platform.ppid
    with pytest.raises(ValueError, match="root CA"):
        dcap_qvl.verify(quote, collateral, NOW)


def test_platforms_of_one_root_share_collateral_and_differ_in_ppid() -> None:
    authority = DevelopmentAuthority(NOW)
    collateral = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(authority.collateral()))
    ppids = set()
    for _ in range(2):
        quote = asyncio.run(SoftwareAttester(authority.issue_platform(), ENCLAVE).quote(bytes(64)))
        ppids.add(dcap_qvl.verify_with_root_ca(quote, collateral, authority.root_der, NOW).ppid)
    assert len(ppids) == 2


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_report_data_of_another_length_is_refused_not_padded_or_cut(size: int) -> None:
    attester = SoftwareAttester(DevelopmentAuthority(NOW).issue_platform(), ENCLAVE)
    with pytest.raises(ReportDataError, match=f"{size} bytes"):
        asyncio.run(attester.quote(bytes(size)))


def test_measurement_is_known_before_launch_and_moves_with_program_and_configuration() -> None:
    attester = SoftwareAttester(DevelopmentAuthority(NOW).issue_platform(), ENCLAVE)
    quote = asyncio.run(attester.quote(bytes(64)))
    others = (SoftwareEnclave(bytes(32), b"configuration"), SoftwareEnclave(ENCLAVE.mrenclave, b"another"))

    assert sgx_measurement(quote[48:432]) == ENCLAVE.measurement
    assert len({ENCLAVE.measurement, *(other.measurement for other in others)}) == 3


def test_measurement_covers_every_register_and_neither_platform_svn_nor_report_data() -> None:
    outside = {"sgx": (0, 320), "tdx": (0, 16, 64, 112, 520)}
    for name, measure, size, inside in (
        ("sgx", sgx_measurement, 384, (16, 32, 48, 63, 64, 128, 192, 255, 256, 258, 260, 304, 319)),
        ("tdx", tdx_measurement, 584, (120, 128, 136, 184, 232, 280, 328, 376, 424, 472, 519)),
    ):
        blank = measure(bytes(size))
        for offset in range(size):
            changed = measure(bytes(offset) + b"\x01" + bytes(size - offset - 1))
            if offset in inside:
                assert changed != blank, (name, offset)
            if offset in outside[name]:
                assert changed == blank, (name, offset)


def test_measurement_formula_is_the_documented_one() -> None:
    tag = hashlib.sha256(b"enclave-oracle/measurement/1").digest()
    assert (
        sgx_measurement(bytes(384))
        == hashlib.sha256(tag + b"\x01" + bytes(4 + 16 + 32 + 32 + 2 + 2 + 16 + 64 + 2 + 16)).digest()
    )
    assert tdx_measurement(bytes(648)) == hashlib.sha256(tag + b"\x02" + bytes(8 + 8 + 48 * 8)).digest()


def test_cli_makes_platforms_that_load_and_never_overwrites_one(tmp_path: Path) -> None:
    directory = tmp_path / "platform"

    assert main([str(directory), "--now", str(NOW), "--platforms", "2"]) == 0

    first, second = Platform.load(directory), Platform.load(tmp_path / "platform-1")
    assert first.root_der == second.root_der
    assert first.ppid != second.ppid
    assert stat.S_IMODE((directory / "pck.key").stat().st_mode) == 0o600
    collateral = dcap_qvl.QuoteCollateralV3.from_json((directory / "collateral.json").read_text())
    quote = asyncio.run(SoftwareAttester.open(directory, ENCLAVE).quote(bytes(64)))
    assert dcap_qvl.verify_with_root_ca(quote, collateral, first.root_der, NOW).status == "UpToDate"
    with pytest.raises(SystemExit):
        main([str(directory), "--now", str(NOW)])


def test_private_keys_do_not_show_in_a_repr() -> None:
    platform = DevelopmentAuthority(NOW).issue_platform()
    assert "pck_key=***" in repr(platform)


def test_factory_refuses_what_it_does_not_know_and_a_missing_platform(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownAttester, match="'keystone', expected one of auto, software, nitro, gramine, occlum, dstack, tdx, snp"
    ):
        attester_from_config("keystone")
    with pytest.raises(PlatformError, match="needs a platform directory"):
        attester_from_config("software")
    with pytest.raises(PlatformError, match="no usable development platform"):
        attester_from_config("software", platform_dir=tmp_path)


def test_factory_opens_the_software_attester_for_the_program_that_runs(tmp_path: Path) -> None:
    main([str(tmp_path / "p"), "--now", str(NOW)])
    attester = attester_from_config("software", platform_dir=tmp_path / "p", launch_config=b"x")
    quote = asyncio.run(attester.quote(bytes(64)))
    assert (attester.kind, attester.tee) == ("software", 1)
    assert sgx_measurement(quote[48:432]) == SoftwareEnclave.of_program(b"x").measurement


@pytest.mark.parametrize("field", ["cpu_svn", "mrenclave", "mrsigner", "report_data", "config_id"])
def test_a_report_field_of_another_size_is_neither_padded_nor_cut(field: str) -> None:
    body = ReportBody(cpu_svn=bytes(16), mrenclave=bytes(32), mrsigner=bytes(32), report_data=bytes(64))
    assert len(body.encode()) == 384
    for size in (-1, 1):
        change: dict[str, Any] = {field: bytes(len(getattr(body, field)) + size)}
        with pytest.raises(ValueError, match=field):
            replace(body, **change).encode()
