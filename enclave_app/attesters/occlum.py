"""SGX under Occlum: ioctls of /dev/sgx.

Source: Occlum's src/libos/src/fs/dev_fs/dev_sgx. Newer releases have Gramine's pseudo-files too, but there all processes
share one `user_report_data`; an ioctl takes report data and gives the quote at once, and every release with DCAP has it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from enclave_app.attesters.base import EvidenceError, checked_report_data
from enclave_app.attesters.bound import MAX_QUOTE, sgx_quote
from enclave_app.attesters.device import FILE_SYSTEM, SECONDS, Hardware, opened
from enclave_app.protocol.measurement import TEE_SGX

DEVICE: Final = Path("/dev/sgx")
GET_DCAP_QUOTE_SIZE: Final = 0x8004_7307
"""_IOR('s', 7, uint32_t)"""
GEN_DCAP_QUOTE: Final = 0xC018_7308
"""_IOWR('s', 8, {sgx_report_data_t *report_data; uint32_t *quote_len; uint8_t *quote_buf;})"""


class OcclumAttester(Hardware):
    def __init__(self, root: Path = FILE_SYSTEM, seconds: float = SECONDS) -> None:
        super().__init__("occlum", TEE_SGX, DEVICE, root, seconds)

    async def quote(self, report_data: bytes) -> bytes:
        """A version 3 quote. Raises AttesterError's kinds."""
        data = checked_report_data(report_data)
        return sgx_quote(await self._device.call(lambda: self._quote(data)), data)

    def _quote(self, data: bytes) -> bytes:
        with opened(self.path, os.O_RDONLY) as descriptor:
            answer = bytearray(4)
            fcntl.ioctl(descriptor, GET_DCAP_QUOTE_SIZE, answer, True)
            size = int.from_bytes(answer, "little")
            if not 0 < size <= MAX_QUOTE:
                raise EvidenceError(f"{self.path} announces a quote of {size} bytes, expected 1 to {MAX_QUOTE}")
            asked = ctypes.create_string_buffer(data, len(data))
            length = ctypes.c_uint32(size)
            quote = ctypes.create_string_buffer(size)
            request = bytearray(struct.pack("<QQQ", *map(ctypes.addressof, (asked, length, quote))))
            fcntl.ioctl(descriptor, GEN_DCAP_QUOTE, request, True)
            return quote.raw[: min(length.value, size)]
