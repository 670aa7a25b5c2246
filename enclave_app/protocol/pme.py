"""Tables at rest: Parquet modular encryption as this protocol uses it, for the side that seals and the one that opens.

Source: https://github.com/apache/parquet-format/blob/master/Encryption.md. Algorithm AES_GCM_V1 and encrypted footers
only: AES_GCM_CTR_V1 lets changed bytes through as wrong values. The master key of key index i (`Manifest.keys`) has the
id "k<i>"; 0 is the footer's, every column has its own. Data keys are 256-bit and singly wrapped, kept inside the file:

    wrapped = base64( nonce (12) ‖ AES-256-GCM( master key, nonce, data key, aad = "enclave-oracle/pme/1|" ‖ key id ) )
"""

from __future__ import annotations

import base64
import binascii
import datetime
import secrets
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.manifest import Column

ALGORITHM = "AES_GCM_V1"
DATA_KEY_BITS = 256
NONCE_BYTES = 12
_AAD = b"enclave-oracle/pme/1|"
_NO_CACHE = datetime.timedelta(milliseconds=1)
_MAGIC = b"PARE"
_FOOTER_TAIL = 8
# Thrift compact: FileCryptoMetaData's field 1 is a struct, the union EncryptionAlgorithm; its field 1 is AES_GCM_V1.
_GCM_V1 = b"\x1c\x1c"
_SEPARATORS = frozenset(",:;")


def key_id(index: int) -> str:
    return f"k{index}"


class ColumnKeys(pe.KmsClient):  # type: ignore[misc]  # pyarrow is untyped
    """A Parquet KMS client over master keys at hand, by key index; `unwrapped` are the ids it was asked to open."""

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        super().__init__()
        self._keys = {key_id(index): key for index, key in keys.items()}
        self.unwrapped: set[str] = set()

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = self._cipher(master_key_identifier).encrypt(nonce, key_bytes, _aad(master_key_identifier))
        return base64.b64encode(nonce + sealed).decode("ascii")

    def unwrap_key(self, wrapped_key: str, master_key_identifier: str) -> bytes:
        cipher = self._cipher(master_key_identifier)
        try:
            raw = base64.b64decode(wrapped_key, validate=True)
            data_key = cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _aad(master_key_identifier))
        except (binascii.Error, InvalidTag, ValueError):
            raise Refused("table.key", "a table's data key does not open with its master key") from None
        self.unwrapped.add(master_key_identifier)
        return data_key

    def _cipher(self, identifier: str) -> AESGCM:
        key = self._keys.get(identifier)
        if key is None:
            raise Refused("table.key_released", "a table needs a key that was not released", found=identifier)
        return AESGCM(key)

    def __repr__(self) -> str:
        return f"ColumnKeys({', '.join(self._keys)})"


def encrypt_table(
    table: pa.Table,
    keys: Sequence[bytes],
    columns: Sequence[Column],
    *,
    row_group_size: int | None = None,
    compression: str = "zstd",
) -> bytes:
    """One encrypted Parquet file; `keys` by key index, `columns` as the manifest has them, in the table's order.

    `row_group_size` in rows. Raises `Refused` where a column would be in plaintext or under another column's key.
    """
    check_columns(columns)
    if [(c.name, c.type) for c in columns] != [(f.name, str(f.type)) for f in table.schema]:
        raise Refused("table.schema", "a table's columns are not those of its manifest")
    configuration = pe.EncryptionConfiguration(
        footer_key=key_id(0),
        # A column missing here would be written in plaintext: the comparison above is what prevents that.
        column_keys={key_id(column.key): [column.name] for column in columns},
        encryption_algorithm=ALGORITHM,
        plaintext_footer=False,
        double_wrapping=False,
        internal_key_material=True,
        data_key_length_bits=DATA_KEY_BITS,
        cache_lifetime=_NO_CACHE,
    )
    factory = pe.CryptoFactory(lambda _: ColumnKeys(dict(enumerate(keys))))
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), configuration)
    sink = pa.BufferOutputStream()
    # The schema's own metadata (a pandas description, for one) is not the manifest's business, and stays out.
    bare = table.replace_schema_metadata(None)
    with pq.ParquetWriter(
        sink,
        bare.schema,
        encryption_properties=properties,
        compression=compression,
        # Otherwise a list comes back under another name for its elements, so as another type than the manifest's.
        use_compliant_nested_type=False,
    ) as writer:
        writer.write_table(bare, row_group_size)
    data = bytes(sink.getvalue())
    _check_types(data, ColumnKeys(dict(enumerate(keys))), bare.schema)
    return data


def _check_types(data: bytes, keys: ColumnKeys, schema: pa.Schema) -> None:
    """Parquet has no seconds, for one: what would come back as another type than the manifest's is refused now."""
    for written, read in zip(schema, open_file(data, keys).schema_arrow, strict=True):
        if written.type != read.type:
            raise Refused(
                "table.type",
                f"column {written.name!r} has a type that Parquet does not keep",
                found=written.type,
                hint=f"Cast it to {read.type}",
            )


def open_file(data: bytes | memoryview | pa.Buffer, keys: ColumnKeys) -> pq.ParquetFile:
    """An encrypted Parquet file in memory, footer opened. Touching the metadata of a column whose key is missing aborts
    the process (pyarrow 26), so read columns only, and only in a process that may die."""
    check_container(memoryview(data))
    factory = pe.CryptoFactory(lambda _: keys)
    properties = factory.file_decryption_properties(
        pe.KmsConnectionConfig(), pe.DecryptionConfiguration(cache_lifetime=_NO_CACHE)
    )
    return pq.ParquetFile(pa.BufferReader(data), decryption_properties=properties, pre_buffer=False)


def check_container(data: memoryview) -> None:
    """Refuse a file whose footer is in plaintext, or whose algorithm is not AES_GCM_V1."""
    if len(data) < 2 * len(_MAGIC) + _FOOTER_TAIL or bytes(data[:4]) != _MAGIC or bytes(data[-4:]) != _MAGIC:
        raise Refused("table.footer", "not a Parquet file with an encrypted footer")
    start = len(data) - _FOOTER_TAIL - int.from_bytes(data[-_FOOTER_TAIL:-4], "little")
    if start < len(_MAGIC) or bytes(data[start : start + len(_GCM_V1)]) != _GCM_V1:
        raise Refused("table.algorithm", "a table is encrypted with another algorithm", expected=ALGORITHM)


def check_columns(columns: Sequence[Column]) -> None:
    """Refuse columns that share a key, which would release one with the other, and names that no key can be mapped to."""
    if len({column.key for column in columns}) != len(columns):
        raise Refused("table.shared_key", "two columns of a table share one key")
    for column in columns:
        if _SEPARATORS & set(column.name) or column.name != column.name.strip():
            raise Refused(
                "table.column_name",
                "a column's name holds one of , : ; or begins or ends with white space",
                found=repr(column.name[:80]),
            )


def _aad(identifier: str) -> bytes:
    return _AAD + identifier.encode("ascii")
