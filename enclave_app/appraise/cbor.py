"""The part of CBOR that Nitro documents are written in, read strictly (RFC 8949).

Whole numbers, byte and text strings, arrays, maps and null; no floats, tags or simple values. Lengths and numbers in their
shortest form, no key twice, strings in one piece. Arrays and maps may be of indefinite length: the hypervisor writes its
document so since 2025.
"""

from __future__ import annotations

from typing import Final, NoReturn, TypeAlias

from enclave_app.appraise.errors import Code, refuse

Value: TypeAlias = "int | bytes | str | list[Value] | dict[int | str, Value] | None"

MAX_DEPTH: Final = 4
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_NULL: Final = 22
_INDEFINITE: Final = 31
_BREAK: Final = 0xFF


def decode(data: bytes, *, start: int = 0) -> tuple[Value, int]:
    """The item at `start`, and where it ends. Raises EvidenceRefused."""
    reader = _Reader(data, start)
    return reader.item(MAX_DEPTH), reader.position


def head(major: int, number: int) -> bytes:
    """The shortest head of an item: `number` is a value, a length or a tag."""
    if number < 24:
        return bytes([major << 5 | number])
    size = next(size for size in (1, 2, 4, 8) if number < 1 << 8 * size)
    return bytes([major << 5 | 23 + size.bit_length()]) + number.to_bytes(size, "big")


class _Reader:
    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self.position = start

    def item(self, depth: int) -> Value:
        major, number = self._head()
        if major == _UNSIGNED and number is not None:
            return number
        if major == _NEGATIVE and number is not None:
            return -1 - number
        if major == _BYTES and number is not None:
            return self._take(number)
        if major == _TEXT and number is not None:
            try:
                return self._take(number).decode()
            except UnicodeDecodeError as cause:
                _malformed(f"text that is not UTF-8 ({cause.reason})")
        if major == _SIMPLE and number == _NULL:
            return None
        if major not in (_ARRAY, _MAP):
            _malformed(f"an item of type {major} with {number}")
        if depth == 0:
            _malformed(f"more than {MAX_DEPTH} levels")
        return self._array(number, depth) if major == _ARRAY else self._map(number, depth)

    def _array(self, count: int | None, depth: int) -> Value:
        found: list[Value] = []
        while self._more(count, len(found)):
            found.append(self.item(depth - 1))
        return found

    def _map(self, count: int | None, depth: int) -> Value:
        found: dict[int | str, Value] = {}
        while self._more(count, len(found)):
            key = self.item(0)
            if not isinstance(key, int | str):
                _malformed("a key that is neither number nor text")
            if key in found:
                _malformed(f"key {key!r} twice")
            found[key] = self.item(depth - 1)
        return found

    def _more(self, count: int | None, done: int) -> bool:
        if count is not None:
            return done < count
        if self._data[self.position : self.position + 1] != bytes([_BREAK]):
            return True
        self.position += 1
        return False

    def _head(self) -> tuple[int, int | None]:
        """Major type and number; None stands for an indefinite length."""
        (first,) = self._take(1)
        major, short = first >> 5, first & 31
        if short < 24:
            return major, short
        if short == _INDEFINITE and major in (_ARRAY, _MAP):
            return major, None
        if short > 27:
            _malformed(f"an item that starts with 0x{first:02x}")
        size = 1 << short - 24
        number = int.from_bytes(self._take(size), "big")
        if number < (24 if size == 1 else 1 << 4 * size):
            _malformed(f"{number} in {size} bytes")
        return major, number

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self._data):
            refuse(Code.EVIDENCE_TOO_SHORT, f"{len(self._data) - self.position} bytes", f"{size}", "send all of it")
        start, self.position = self.position, end
        return self._data[start:end]


def _malformed(found: str) -> NoReturn:
    refuse(
        Code.DOCUMENT_ENCODING, found, "CBOR as the Nitro hypervisor writes it", "send the document as NSM returned it"
    )
