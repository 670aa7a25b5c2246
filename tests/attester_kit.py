"""What the attesters ask, played back: kernel interfaces and a guest agent that answer with recorded evidence.

Each stand-in is as strict as what it stands for, also where that is odd: configfs takes what was written at the close and
tells no error then; Occlum's pseudo-files ignore where one reads from; the Nitro driver cuts an answer that does not fit.
"""

from __future__ import annotations

import contextlib
import errno
import json
import struct
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from aiohttp import web

from enclave_app.attesters import configfs_tsm, dstack, gramine, nitro, occlum
from enclave_app.attesters.certificates import ARK, ASK
from tests.fuse_kit import Directory, File, Memory, Node, mounted, tree

RECORDED = Path(__file__).parent / "data" / "attestation"
Answer = Callable[[bytes], bytes]
"""Report data → evidence."""


def recorded(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


def remembering(asked: list[bytes], evidence: bytes) -> Answer:
    """Always `evidence`; what it was asked for is appended to `asked`."""

    def answer(report_data: bytes) -> bytes:
        asked.append(report_data)
        return evidence

    return answer


def certificate_table(key: uuid.UUID, case: str = "dstack-milan-v3") -> dict[uuid.UUID, bytes]:
    return {
        key: recorded(f"snp/{case}/ek.der"),
        ASK: recorded(f"snp/{case}/ask.der"),
        ARK: recorded(f"snp/{case}/ark.der"),
    }


def packed_table(certificates: dict[uuid.UUID, bytes]) -> bytes:
    """As an SNP host lays it out, filled up to a page."""
    offset = 24 * (len(certificates) + 1)
    entries, bodies = b"", b""
    for guid, certificate in certificates.items():
        entries += guid.bytes + struct.pack("<II", offset + len(bodies), len(certificate))
        bodies += certificate
    table = entries + bytes(24) + bodies
    return table + bytes(-len(table) % 4096)


class Report(Directory):
    """One request below /sys/kernel/config/tsm/report, as drivers/virt/coco/guest/report.c has it."""

    def __init__(self, tsm: Tsm) -> None:
        self.tsm, self.inblob = tsm, b""
        self.written = 0
        self.made: tuple[int, bytes] | None = None
        attributes: dict[str, Node] = {
            "inblob": File(None, self._store, most=64),
            "outblob": File(self._outblob),
            "generation": File(lambda: b"%d\n" % self.written),
            "provider": File(lambda: tsm.provider.encode() + b"\n"),
        }
        if tsm.provider == "sev_guest":
            attributes["auxblob"] = File(lambda: self._outblob() and tsm.auxiliary)
            attributes["privlevel_floor"] = File(lambda: b"0\n")
        super().__init__(attributes)

    def _store(self, data: bytes) -> None:
        self.inblob = data
        self.written += 1
        self.tsm.asked.append(data)

    def _outblob(self) -> bytes:
        if not self.inblob:
            raise OSError(errno.EINVAL, "no inblob")
        if self.made is None or self.made[0] != self.written:
            if self.tsm.failures:
                raise OSError(self.tsm.failures.pop(0), "as told")
            self.made = self.written, self.tsm.answer(self.inblob)
        if self.tsm.intruders:
            self.tsm.intruders -= 1
            self.written += 1
        return self.made[1]


class Tsm(Directory):
    """The directory of reports. `intruders` times another program writes into a request; `failures` are errnos."""

    def __init__(self, provider: str, answer: Answer, auxiliary: bytes = b"") -> None:
        super().__init__()
        self.provider, self.answer, self.auxiliary = provider, answer, auxiliary
        self.asked: list[bytes] = []
        self.failures: list[int] = []
        self.intruders = 0

    def make(self, name: str) -> Node:
        return Report(self)


class GramineFiles(Directory):
    """/dev/attestation under Gramine with SGX: zeros behind short report data, as it says of itself."""

    def __init__(self, answer: Answer, scheme: str = "dcap") -> None:
        self.report_data = bytes(64)
        super().__init__(
            {
                "attestation_type": File(scheme.encode),
                "user_report_data": File(lambda: self.report_data, self._store),
                "my_target_info": File(lambda: bytes(512)),
                "quote": File(lambda: answer(self.report_data)),
            }
        )

    def _store(self, data: bytes) -> None:
        self.report_data = data[:64].ljust(64, b"\0")


class OcclumDevice(File):
    """/dev/sgx under Occlum, which leaves `quote_len` as it was and hands out the largest quote's size, zeros behind."""

    def __init__(self, answer: Answer, size: int = 8192) -> None:
        super().__init__(lambda: b"")
        self.answer, self.size = answer, size

    def ioctl(self, command: int, argument: bytes, caller: Memory) -> bytes:
        if command == occlum.GET_DCAP_QUOTE_SIZE:
            return struct.pack("<I", self.size)
        if command != occlum.GEN_DCAP_QUOTE:
            raise OSError(errno.ENOSYS, "unknown ioctl cmd for /dev/sgx")
        report_data, length, buffer = struct.unpack("<QQQ", argument)
        if struct.unpack("<I", caller.read(length, 4))[0] < self.size:
            raise OSError(errno.EINVAL, "provided quote is too small")
        quote = self.answer(caller.read(report_data, 64)).ljust(self.size, b"\0")
        caller.write(buffer, quote)
        return argument


class NsmDevice(File):
    """/dev/nsm: the driver around `answer`, which is the module's, from request to response in CBOR."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(lambda: b"", lambda _: None)
        self.answer = answer

    def ioctl(self, command: int, argument: bytes, caller: Memory) -> bytes:
        if command != nitro.NSM_IOCTL_RAW or len(argument) != 32:
            raise OSError(errno.EINVAL, "not NSM_IOCTL_RAW")
        request, size, response, room = struct.unpack("<QQQQ", argument)
        if size > 0x1000:
            raise OSError(errno.EMSGSIZE, "too large")
        answer = self.answer(caller.read(request, size))[:0x3000]
        given = answer[:room]
        caller.write(response, given)
        return struct.pack("<QQQQ", request, size, response, len(given))


@contextlib.contextmanager
def machine(at: Path, **devices: Node) -> Iterator[Path]:
    """A file system with these devices in it: `tsm`, `gramine`, `sgx` (Occlum's), `nsm`, or `path=node` of one's own."""
    places = {
        "tsm": configfs_tsm.REPORTS,
        "gramine": gramine.DIRECTORY,
        "sgx": occlum.DEVICE,
        "nsm": nitro.DEVICE,
        "tdx_guest": Path("/dev/tdx_guest"),
        "sev_guest": Path("/dev/sev-guest"),
    }
    with mounted(tree({str(places[name]): node for name, node in devices.items()}), at) as root:
        yield root


@contextlib.asynccontextmanager
async def guest_agent(
    root: Path, answer: Answer, *, status: int = 200, body: bytes | None = None, elsewhere: bool = False
) -> AsyncIterator[Path]:
    """dstack's agent on its socket below `root`; `body` instead of what GetQuote answers, with `status`. With `elsewhere`, it
    points to another path, which answers."""

    async def get_quote(request: web.Request) -> web.Response:
        asked = bytes.fromhex((await request.json())["report_data"])
        if not 0 < len(asked) <= 64:
            return web.json_response({"error": "Report data too long"}, status=400)
        data = asked.ljust(64, b"\0")
        told = {"quote": answer(data).hex(), "event_log": "[]", "report_data": data.hex(), "vm_config": "{}"}
        return web.Response(
            body=json.dumps(told).encode() if body is None else body, status=status, content_type="application/json"
        )

    async def moved(_: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("/elsewhere")

    app = web.Application()
    app.router.add_post("/GetQuote", moved if elsewhere else get_quote)
    app.router.add_post("/elsewhere", get_quote)
    runner = web.AppRunner(app)
    await runner.setup()
    socket = root / dstack.SOCKET.relative_to("/")
    socket.parent.mkdir(parents=True, exist_ok=True)
    try:
        await web.UnixSite(runner, str(socket)).start()
        yield root
    finally:
        await runner.cleanup()
