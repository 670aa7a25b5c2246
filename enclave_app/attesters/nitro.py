"""AWS Nitro Enclaves: the Nitro Secure Module behind /dev/nsm.

Source: the Linux driver (drivers/misc/nsm.c, include/uapi/linux/nsm.h) for the ioctl, and the NSM API's request and
response types for the CBOR (RFC 8949) inside. Both messages have one form each, so they are put together and taken
apart byte by byte, as the driver does with its own.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from enclave_app.attesters.base import EvidenceError, PlatformError, checked_report_data
from enclave_app.attesters.device import FILE_SYSTEM, SECONDS, Hardware, opened
from enclave_app.protocol.measurement import TEE_NITRO

DEVICE: Final = Path("/dev/nsm")
NSM_IOCTL_RAW: Final = 0xC020_0A00
"""_IOWR(0x0A, 0, struct nsm_raw): two iovecs, the request's and the response's."""
MAX_RESPONSE: Final = 0x3000

_NULL: Final = b"\xf6"
_ERROR: Final = b"\xa1\x65Error"
_DOCUMENT: Final = b"\xa1\x6bAttestation\xa1\x68document"
_SIZES: Final = {0x58: 1, 0x59: 2, 0x5A: 4}
"""A byte string's first byte → bytes of its length; shorter strings than 24 bytes are no document."""


class NitroAttester(Hardware):
    def __init__(self, root: Path = FILE_SYSTEM, seconds: float = SECONDS) -> None:
        super().__init__("nitro", TEE_NITRO, DEVICE, root, seconds)

    async def quote(self, report_data: bytes) -> bytes:
        """A COSE_Sign1 attestation document with the report data as `user_data`. Raises AttesterError's kinds."""
        data = checked_report_data(report_data)
        document = read_response(await self._device.call(lambda: self._ask(attestation_request(data))))
        if b"\x69user_data" + _bytes(data) not in document:
            raise EvidenceError("the attestation document lacks the user data that was asked for (R2)")
        return document

    def _ask(self, request: bytes) -> bytes:
        asked = ctypes.create_string_buffer(request, len(request))
        answer = ctypes.create_string_buffer(MAX_RESPONSE)
        raw = bytearray(
            struct.pack("<QQQQ", ctypes.addressof(asked), len(request), ctypes.addressof(answer), MAX_RESPONSE)
        )
        with opened(self.path, os.O_RDWR) as descriptor:
            fcntl.ioctl(descriptor, NSM_IOCTL_RAW, raw, True)
        length = struct.unpack("<QQQQ", raw)[3]
        return answer.raw[: min(length, MAX_RESPONSE)]


def attestation_request(user_data: bytes) -> bytes:
    """{"Attestation": {"user_data": …, "nonce": null, "public_key": null}}"""
    members = (b"\x69user_data", _bytes(user_data), b"\x65nonce", _NULL, b"\x6apublic_key", _NULL)
    return b"\xa1\x6bAttestation\xa3" + b"".join(members)


def read_response(response: bytes) -> bytes:
    """The document of {"Attestation": {"document": …}}. Raises PlatformError for {"Error": …}, else EvidenceError."""
    if response.startswith(_ERROR):
        reason = response[len(_ERROR) + 1 :].decode("ascii", "replace")
        raise PlatformError(f"the Nitro Secure Module refuses: {reason[:100]!r}")
    head = response[len(_DOCUMENT) : len(_DOCUMENT) + 1]
    size = _SIZES.get(head[0]) if head and response.startswith(_DOCUMENT) else None
    if size is None:
        raise EvidenceError("the Nitro Secure Module's answer is no attestation")
    start = len(_DOCUMENT) + 1 + size
    document = response[start:]
    # One that did not fit into the buffer ends early.
    if int.from_bytes(response[len(_DOCUMENT) + 1 : start], "big") != len(document) or not document:
        raise EvidenceError("the Nitro Secure Module's answer has another length than it says")
    return document


def _bytes(data: bytes) -> bytes:
    return b"\x58" + bytes([len(data)]) + data
