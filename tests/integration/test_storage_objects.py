"""Object storage: a real S3 server, and servers that are none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import boto3
import pytest
from moto.server import ThreadedMotoServer

from enclave_app.protocol.digests import sha256
from enclave_app.protocol.errors import OracleError, Permanent, Refused, Retryable
from oracle.objects import ObjectStorage, open_objects
from oracle.storage import open_storage

SECRET = "a-secret-that-no-error-shows"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket="bucket")
    yield url
    server.stop()


def uri(endpoint: str, bucket: str = "bucket") -> str:
    return f"s3://{bucket}/a/prefix?endpoint={quote(endpoint, safe='')}&region=us-east-1"


async def test_blobs_files_and_records_come_back(endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"of a file")
    async with open_storage(uri(endpoint)) as storage:
        for data in (b"ciphertext", b""):
            assert await storage.get(await storage.put(data)) == data
        assert await storage.put_file(tmp_path / "file") == sha256(b"of a file")
        assert await storage.get(sha256(b"of a file")) == b"of a file"
        await storage.put_named("task-1", b"old")
        await storage.put_named("task-1", b"new")
        assert await storage.get_named("task-1") == b"new"
    listed = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").list_objects_v2(Bucket="bucket")
    assert all(each["Key"].startswith("a/prefix/") for each in listed["Contents"])
    assert len(listed["Contents"]) == 4


async def test_a_missing_object_can_be_asked_for_again_and_one_too_large_is_refused(endpoint: str) -> None:
    async with open_storage(uri(endpoint)) as storage:
        with pytest.raises(Retryable) as missing:
            await storage.get(bytes(32))
        assert missing.value.code == "blob.missing"
        digest = await storage.put(b"four")
        with pytest.raises(Refused) as large:
            await storage.get(digest, limit=3)
        assert large.value.code == "blob.size"


async def test_other_bytes_under_a_digest_are_refused(endpoint: str) -> None:
    async with open_storage(uri(endpoint)) as storage:
        digest = await storage.put(b"honest")
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").put_object(
            Bucket="bucket", Key=f"a/prefix/{digest.hex()}", Body=b"a lie!"
        )
        with pytest.raises(Refused) as refusal:
            await storage.get(digest)
        assert refusal.value.code == "blob.digest"
        # Repeating an upload mends it.
        await storage.put(b"honest")
        assert await storage.get(digest) == b"honest"


async def test_a_bucket_that_is_not_there_is_said_and_no_secret_is(endpoint: str) -> None:
    async with open_storage(uri(endpoint, "another")) as storage:
        with pytest.raises(Permanent) as error:
            await storage.put(b"data")
    assert error.value.code == "storage.object"
    assert SECRET not in error.value.message
    assert endpoint not in error.value.message


async def test_a_server_that_is_down_can_be_tried_again() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        async with open_storage(uri(f"http://127.0.0.1:{held.getsockname()[1]}")) as storage:
            for attempt in (storage.put(b"data"), storage.get(bytes(32))):
                with pytest.raises(Retryable) as error:
                    await attempt
                assert error.value.code == "storage.object"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "InternalError", Retryable),
        (503, "SlowDown", Retryable),
        (507, "InsufficientStorage", Retryable),
        (403, "AccessDenied", Permanent),
        (403, "SignatureDoesNotMatch", Permanent),
        (404, "NoSuchBucket", Permanent),
    ],
)
async def test_errors_of_a_server_say_whether_to_try_again(status: int, code: str, kind: type[OracleError]) -> None:
    body = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answers, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        async with open_storage(uri(f"http://127.0.0.1:{port}")) as storage:
            with pytest.raises(kind) as error:
                await storage.put_named("task-1", b"data")
        assert SECRET not in str(error.value)
    finally:
        server.close()
        await server.wait_closed()


async def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        async with open_objects(uri(f"http://127.0.0.1:{port}"), timeout=0.3) as storage:
            with pytest.raises(Retryable):
                await storage.put(b"data")
    finally:
        over.set()
        server.close()
        await server.wait_closed()


def test_prefix_and_options_are_read() -> None:
    storage = open_storage("s3://bucket/a%20b/c/?region=eu-1&endpoint=https%3A%2F%2Fs3.example")
    assert isinstance(storage, ObjectStorage)
    assert storage.uri == "s3://bucket/a b/c"


@pytest.mark.parametrize(
    "wrong",
    [
        "s3://",
        "s3:///prefix",
        "s3://UPPER/x",
        f"s3://id:{SECRET}@bucket/x",
        f"s3://bucket/x?secret={SECRET}",
        "s3://bucket/x?region=a&region=b",
        "s3://bucket/../other",
        "s3://bucket/%2e%2e/other",
        "s3://bucket/x#part",
        "s3://bucket/x?endpoint=file:///etc",
        f"s3://bucket/x?endpoint=https://id:{SECRET}@host",
    ],
)
def test_other_uris_are_refused_and_not_shown(wrong: str) -> None:
    with pytest.raises(Refused) as refusal:
        open_storage(wrong)
    assert refusal.value.code == "storage.uri"
    assert SECRET not in refusal.value.message
