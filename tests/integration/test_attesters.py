"""Each attester against what it really talks to: files, ioctls and a socket, which answer with recorded evidence."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from enclave_app.attesters.base import (
    Attester,
    AttesterError,
    EvidenceError,
    PlatformError,
    PlatformTimeout,
    ReportDataError,
    UnknownAttester,
)
from enclave_app.attesters.certificates import VCEK
from enclave_app.attesters.configfs_tsm import ATTEMPTS, ConfigfsTsmAttester
from enclave_app.attesters.dstack import MAX_ANSWER, DstackAttester
from enclave_app.attesters.factory import attester_from_config
from enclave_app.attesters.gramine import GramineAttester
from enclave_app.attesters.nitro import NitroAttester
from enclave_app.attesters.occlum import OcclumAttester
from enclave_app.attesters.platform import DevelopmentAuthority
from enclave_app.attesters.software import SoftwareAttester, SoftwareEnclave
from enclave_app.protocol.measurement import TEE_SNP, snp_measurement
from enclave_app.protocol.structs import FunctionKind
from enclave_app.protocol.wire import EvidenceAnswer, EvidenceBody
from tests import attester_kit as kit
from tests.enclave_kit import OWNER, REGISTRY, Refusal, enclave, enclave_config, make_world
from tests.fuse_kit import Directory, File

SGX = kit.recorded("sgx/automata-sgx-v3-a/quote.bin")
SGX_DATA = SGX[368:432]
TDX = kit.recorded("tdx/phala-tdx-v4/quote.bin")
TDX_DATA = TDX[568:632]
SNP = kit.recorded("snp/dstack-milan-v3/report.bin")
SNP_DATA = SNP[0x50:0x90]
NITRO = kit.recorded("nitro/dstack-prod-2025/attestation.cbor")
NITRO_DATA = bytes(64)
CERTIFICATES = kit.certificate_table(VCEK)
FOREIGN = b"\x5a" * 64


def nsm(document: bytes = NITRO) -> kit.NsmDevice:
    def answer(request: bytes) -> bytes:
        if not request.startswith(b"\xa1\x6bAttestation\xa3\x69user_data\x58\x40"):
            return b"\xa1\x65Error\x70InvalidOperation"
        return b"\xa1\x6bAttestation\xa1\x68document\x59" + len(document).to_bytes(2, "big") + document

    return kit.NsmDevice(answer)


def tdx(answer: kit.Answer = lambda _: TDX) -> kit.Tsm:
    return kit.Tsm("tdx_guest", answer)


def snp() -> kit.Tsm:
    return kit.Tsm("sev_guest", lambda _: SNP, kit.packed_table(CERTIFICATES))


# --- Linux configfs-tsm


async def test_a_tdx_guest_gets_its_quote_without_the_zeros_behind(tmp_path: Path) -> None:
    tsm = tdx()
    with kit.machine(tmp_path, tsm=tsm) as root:
        attester = ConfigfsTsmAttester("tdx", root)
        assert (await attester.quote(TDX_DATA), await attester.endorsements()) == (TDX[:-70], ())
    assert tsm.asked == [TDX_DATA]
    assert tsm.entries == {}


async def test_an_snp_guest_gets_its_report_and_the_hosts_certificates(tmp_path: Path) -> None:
    with kit.machine(tmp_path, tsm=snp()) as root:
        attester = ConfigfsTsmAttester("snp", root)
        assert await attester.endorsements() == ()
        assert await attester.quote(SNP_DATA) == SNP
        assert await attester.endorsements() == tuple(CERTIFICATES.values())


async def test_a_write_in_between_is_seen_and_the_request_made_anew(tmp_path: Path) -> None:
    tsm = tdx()
    with kit.machine(tmp_path, tsm=tsm) as root:
        tsm.intruders = 1
        assert await ConfigfsTsmAttester("tdx", root).quote(TDX_DATA) == TDX[:-70]
        assert len(tsm.asked) == 2
        tsm.intruders = ATTEMPTS
        with pytest.raises(PlatformError, match="something else writes"):
            await ConfigfsTsmAttester("tdx", root).quote(TDX_DATA)
    assert tsm.entries == {}


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EINTR, errno.EAGAIN])
async def test_a_busy_kernel_is_asked_again(tmp_path: Path, number: int) -> None:
    tsm = tdx()
    tsm.failures = [number]
    with kit.machine(tmp_path, tsm=tsm) as root:
        assert await ConfigfsTsmAttester("tdx", root).quote(TDX_DATA) == TDX[:-70]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENXIO, errno.ETIMEDOUT])
async def test_a_kernel_that_fails_is_not_asked_again(tmp_path: Path, number: int) -> None:
    tsm = tdx()
    tsm.failures = [number]
    with kit.machine(tmp_path, tsm=tsm) as root, pytest.raises(PlatformError, match="refuses"):
        await ConfigfsTsmAttester("tdx", root).quote(TDX_DATA)
    assert len(tsm.asked) == 1
    assert tsm.entries == {}


@pytest.mark.parametrize(("kind", "provider"), [("tdx", "sev_guest"), ("snp", "tdx_guest")])
async def test_another_provider_than_configured_is_refused(tmp_path: Path, kind: str, provider: str) -> None:
    with (
        kit.machine(tmp_path, tsm=kit.Tsm(provider, lambda _: TDX)) as root,
        pytest.raises(PlatformError, match=provider),
    ):
        await ConfigfsTsmAttester(kind, root).quote(TDX_DATA)


async def test_a_kernel_that_loses_what_was_written_is_not_believed(tmp_path: Path) -> None:
    """A close tells no error, so only the generation does."""
    tsm = tdx()

    class Deaf(kit.Tsm):
        def make(self, name: str) -> kit.Report:
            report = kit.Report(self)
            report.inblob = TDX_DATA
            report.entries["inblob"] = File(None, lambda _: None)
            return report

    tsm = Deaf("tdx_guest", lambda _: TDX)
    with kit.machine(tmp_path, tsm=tsm) as root, pytest.raises(PlatformError, match="stays busy"):
        await ConfigfsTsmAttester("tdx", root).quote(TDX_DATA)


# --- Gramine and Occlum


async def test_gramine_gets_its_quote_over_what_was_written(tmp_path: Path) -> None:
    files = kit.GramineFiles(lambda _: SGX)
    with kit.machine(tmp_path, gramine=files) as root:
        assert await GramineAttester(root).quote(SGX_DATA) == SGX
    assert files.report_data == SGX_DATA


@pytest.mark.parametrize("scheme", ["none", "epid"])
async def test_gramine_without_dcap_is_refused(tmp_path: Path, scheme: str) -> None:
    files = kit.GramineFiles(lambda _: SGX, scheme)
    with kit.machine(tmp_path, gramine=files) as root, pytest.raises(PlatformError, match=f"'{scheme}', expected dcap"):
        await GramineAttester(root).quote(SGX_DATA)


async def test_a_pseudo_file_without_an_end_is_left(tmp_path: Path) -> None:
    files = kit.GramineFiles(lambda _: SGX)
    endless = File(lambda: b"dcap")
    endless.forgets_offset = True
    files.entries["attestation_type"] = endless
    with kit.machine(tmp_path, gramine=files) as root, pytest.raises(EvidenceError, match="more than 64 bytes"):
        await GramineAttester(root).quote(SGX_DATA)


async def test_report_data_that_is_taken_in_part_is_refused(tmp_path: Path) -> None:
    files = kit.GramineFiles(lambda _: SGX)
    written = files.entries["user_report_data"]
    assert isinstance(written, File)
    written.takes = 63
    with kit.machine(tmp_path, gramine=files) as root, pytest.raises(EvidenceError, match="took 63 bytes"):
        await GramineAttester(root).quote(SGX_DATA)


async def test_occlum_gets_its_quote_by_ioctl_without_the_zeros_behind(tmp_path: Path) -> None:
    asked: list[bytes] = []
    device = kit.OcclumDevice(kit.remembering(asked, SGX))
    with kit.machine(tmp_path, sgx=device) as root:
        assert await OcclumAttester(root).quote(SGX_DATA) == SGX
    assert asked == [SGX_DATA]


@pytest.mark.parametrize("size", [0, 1 << 16, (1 << 32) - 1])
async def test_occlum_with_an_absurd_quote_size_is_refused(tmp_path: Path, size: int) -> None:
    device = kit.OcclumDevice(lambda _: SGX, size)
    with (
        kit.machine(tmp_path, sgx=device) as root,
        pytest.raises(EvidenceError, match=f"announces a quote of {size} bytes"),
    ):
        await OcclumAttester(root).quote(SGX_DATA)


# --- Nitro


async def test_nitro_gets_its_document(tmp_path: Path) -> None:
    with kit.machine(tmp_path, nsm=nsm()) as root:
        assert await NitroAttester(root).quote(NITRO_DATA) == NITRO


async def test_the_nsms_refusal_reaches_whoever_asked(tmp_path: Path) -> None:
    device = kit.NsmDevice(lambda _: b"\xa1\x65Error\x6dInternalError")
    with kit.machine(tmp_path, nsm=device) as root, pytest.raises(PlatformError, match="InternalError"):
        await NitroAttester(root).quote(NITRO_DATA)


async def test_a_document_that_the_driver_had_to_cut_is_refused(tmp_path: Path) -> None:
    with (
        kit.machine(tmp_path, nsm=nsm(NITRO + bytes(0x3000))) as root,
        pytest.raises(EvidenceError, match="another length"),
    ):
        await NitroAttester(root).quote(NITRO_DATA)


# --- dstack


async def test_a_dstack_container_gets_its_quote(tmp_path: Path) -> None:
    asked: list[bytes] = []
    async with kit.guest_agent(tmp_path, kit.remembering(asked, TDX)) as root:
        assert await DstackAttester(root).quote(TDX_DATA) == TDX[:-70]
    assert asked == [TDX_DATA]


async def test_an_agents_refusal_reaches_whoever_asked(tmp_path: Path) -> None:
    body = b'{"error": "quote is not supported on this platform"}'
    async with kit.guest_agent(tmp_path, lambda _: TDX, status=400, body=body) as root:
        with pytest.raises(PlatformError, match="not supported on this platform"):
            await DstackAttester(root).quote(TDX_DATA)


async def test_an_agents_answer_is_bounded(tmp_path: Path) -> None:
    async with kit.guest_agent(tmp_path, lambda _: TDX, body=b" " * (MAX_ANSWER + 1)) as root:
        with pytest.raises(EvidenceError, match="larger than"):
            await DstackAttester(root).quote(TDX_DATA)


async def test_an_agents_redirect_is_not_followed(tmp_path: Path) -> None:
    async with kit.guest_agent(tmp_path, lambda _: TDX, elsewhere=True) as root:
        with pytest.raises(PlatformError, match="status 307"):
            await DstackAttester(root).quote(TDX_DATA)


async def test_an_agent_that_never_answers_is_given_up(tmp_path: Path) -> None:
    release, closed = asyncio.Event(), asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()
        await writer.wait_closed()
        closed.set()

    (tmp_path / "var" / "run").mkdir(parents=True)
    async with await asyncio.start_unix_server(never, tmp_path / "var" / "run" / "dstack.sock"):
        with pytest.raises(PlatformTimeout, match="dstack"):
            await DstackAttester(tmp_path, seconds=0.1).quote(TDX_DATA)
        release.set()
        await closed.wait()


# --- all of them


@pytest.fixture
async def attesters(tmp_path: Path) -> AsyncIterator[dict[str, Attester]]:
    """Every kind of hardware, each on a machine of its own, and what it is asked for here is foreign to the evidence."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    devices = {"gramine": kit.GramineFiles(lambda _: SGX), "sgx": kit.OcclumDevice(lambda _: SGX), "nsm": nsm()}
    with kit.machine(tmp_path / "a", tsm=tdx(), **devices) as one, kit.machine(tmp_path / "b", tsm=snp()) as two:
        (tmp_path / "c").mkdir()
        async with kit.guest_agent(tmp_path / "c", lambda _: TDX) as three:
            yield {
                "tdx": ConfigfsTsmAttester("tdx", one),
                "snp": ConfigfsTsmAttester("snp", two),
                "gramine": GramineAttester(one),
                "occlum": OcclumAttester(one),
                "nitro": NitroAttester(one),
                "dstack": DstackAttester(three),
            }


async def test_evidence_over_something_else_is_refused_by_each(attesters: dict[str, Attester]) -> None:
    for attester in attesters.values():
        with pytest.raises(EvidenceError):
            await attester.quote(FOREIGN)


@pytest.mark.parametrize("size", [0, 32, 63, 65])
async def test_report_data_of_another_length_is_refused_by_each(attesters: dict[str, Attester], size: int) -> None:
    for attester in attesters.values():
        with pytest.raises(ReportDataError):
            await attester.quote(bytes(size))


async def test_each_says_what_it_is(attesters: dict[str, Attester]) -> None:
    told = {kind: (attester.kind, attester.tee, attester.simulated) for kind, attester in attesters.items()}
    tees = {"gramine": 1, "occlum": 1, "tdx": 2, "dstack": 2, "snp": 3, "nitro": 4}
    assert told == {kind: (kind, tee, True) for kind, tee in tees.items()}
    assert not ConfigfsTsmAttester("tdx").simulated


@pytest.mark.parametrize("kind", ["tdx", "snp", "gramine", "occlum", "nitro", "dstack"])
async def test_a_machine_without_it_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(AttesterError) as refused:
        await attester_from_config(kind, platform_dir=tmp_path).quote(bytes(64))
    assert refused.value.code == "attester.platform"


async def test_a_device_that_hangs_is_given_up_and_not_asked_again(tmp_path: Path) -> None:
    release = threading.Event()
    try:
        with kit.machine(tmp_path, tsm=tdx(lambda _: (release.wait(30) and TDX) or b"")) as root:
            attester = ConfigfsTsmAttester("tdx", root, seconds=0.2)
            with pytest.raises(PlatformTimeout, match="within"):
                await attester.quote(TDX_DATA)
            with pytest.raises(PlatformTimeout, match="earlier request"):
                await attester.quote(TDX_DATA)
            release.set()
    finally:
        release.set()


async def test_requests_at_the_same_time_each_get_their_own_evidence(tmp_path: Path) -> None:
    """Gramine's files hold one process's latest report data, so two requests must not mix."""

    def quote(data: bytes) -> bytes:
        return SGX[:368] + data + SGX[432:]

    with kit.machine(tmp_path, gramine=kit.GramineFiles(quote)) as root:
        attester = GramineAttester(root)
        asked = [bytes([number]) * 64 for number in range(8)]
        assert await asyncio.gather(*map(attester.quote, asked)) == [quote(data) for data in asked]


# --- a whole enclave


async def test_an_enclave_under_gramine_runs_no_function_with_code_of_its_own(tmp_path: Path) -> None:
    """R6, in a whole enclave: its evidence comes through the pseudo-files, and a Python function is refused."""
    platform = DevelopmentAuthority(1_800_000_000).issue_platform()
    minted = SoftwareAttester(platform, SoftwareEnclave(bytes(range(32)), b""))
    (tmp_path / "platform").mkdir()
    files = kit.GramineFiles(lambda data: asyncio.run(minted.quote(data)))
    with kit.machine(tmp_path / "platform", gramine=files):
        async with enclave(tmp_path, config=enclave_config(attester="auto")) as running:
            identity = await running.identity()
            assert (identity.attester, identity.tee, identity.simulated) == ("gramine", 1, True)
            assert identity.measurement == minted.enclave.measurement
            body = EvidenceBody(chain_id=31337, registry=REGISTRY, block_hash=bytes(32), operator=OWNER)
            answer = await running.ask("POST", "/v1/evidence", EvidenceAnswer, body)
            assert answer.quote[368:432] == files.report_data != bytes(64)
            world = make_world(tmp_path / "storage", identity.measurement)
            assert (await running.start(world.body())).task_id
            python = world.agreement.fn.model_copy(update={"kind": FunctionKind.PYTHON})
            with pytest.raises(Refusal) as refused:
                await running.start(world.body(world.changed(fn=python)))
            assert refused.value.code == "task.sandbox"


async def test_an_enclave_in_an_snp_guest_hands_out_the_hosts_certificates(tmp_path: Path) -> None:
    tsm = kit.Tsm("sev_guest", lambda data: SNP[:0x50] + data + SNP[0x90:], kit.packed_table(CERTIFICATES))
    (tmp_path / "platform").mkdir()
    with kit.machine(tmp_path / "platform", tsm=tsm):
        async with enclave(tmp_path, config=enclave_config(attester="snp")) as running:
            identity = await running.identity()
            body = EvidenceBody(chain_id=31337, registry=REGISTRY, block_hash=bytes(32), operator=OWNER)
            answer = await running.ask("POST", "/v1/evidence", EvidenceAnswer, body)
    assert (identity.tee, identity.measurement) == (TEE_SNP, snp_measurement(SNP))
    assert answer.quote[0x50:0x90] == tsm.asked[-1]
    assert answer.endorsements == tuple(CERTIFICATES.values())


async def test_an_enclave_whose_platform_fails_says_why(tmp_path: Path) -> None:
    platform = DevelopmentAuthority(1_800_000_000).issue_platform()
    minted = SoftwareAttester(platform, SoftwareEnclave(bytes(range(32)), b""))
    asked: list[bytes] = []

    def once(data: bytes) -> bytes:
        asked.append(data)
        if len(asked) > 1:
            raise OSError(errno.EIO, "the quoting enclave is gone")
        return asyncio.run(minted.quote(data))

    (tmp_path / "platform").mkdir()
    with kit.machine(tmp_path / "platform", gramine=kit.GramineFiles(once)):
        async with enclave(tmp_path, config=enclave_config(attester="gramine")) as running:
            body = EvidenceBody(chain_id=31337, registry=REGISTRY, block_hash=bytes(32), operator=OWNER)
            with pytest.raises(Refusal) as refused:
                await running.ask("POST", "/v1/evidence", EvidenceAnswer, body)
    assert (refused.value.status, refused.value.code, refused.value.body.retry) == (503, "attester.platform", True)
    assert "Input/output error" in refused.value.body.message


# --- auto


@pytest.mark.parametrize(
    ("devices", "kind"),
    [
        ({"nsm": nsm()}, "nitro"),
        ({"gramine": kit.GramineFiles(lambda _: SGX), "sgx": File(lambda: b"")}, "gramine"),
        ({"sgx": File(lambda: b"")}, "occlum"),
        ({"tsm": tdx(), "tdx_guest": File(lambda: b"", lambda _: None)}, "tdx"),
        ({"tsm": snp(), "sev_guest": File(lambda: b"", lambda _: None)}, "snp"),
    ],
)
def test_auto_takes_what_the_machine_has(tmp_path: Path, devices: dict[str, Directory], kind: str) -> None:
    with kit.machine(tmp_path, **devices) as root:
        assert attester_from_config("auto", platform_dir=root).kind == kind


async def test_auto_takes_dstacks_socket(tmp_path: Path) -> None:
    async with kit.guest_agent(tmp_path, lambda _: TDX) as root:
        assert attester_from_config("auto", platform_dir=root).kind == "dstack"


def test_auto_never_simulates(tmp_path: Path) -> None:
    with pytest.raises(UnknownAttester, match=r"nitro: no /dev/nsm; .*name `software`"):
        attester_from_config("auto", platform_dir=tmp_path)
