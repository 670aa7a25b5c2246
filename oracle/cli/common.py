"""What the commands share: options, passwords, the configuration, a client, and the one place where the event loop runs."""

from __future__ import annotations

import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from enclave_app.protocol.errors import Refused

if TYPE_CHECKING:
    from enclave_app.protocol.hpke import SealingKey
    from enclave_app.protocol.params import ParamDomain
    from enclave_app.protocol.signing import SigningKey
    from oracle.client import Client
    from oracle.config import ClientConfig
    from oracle.passwords import Password

T = TypeVar("T")
DEFAULT_CONFIG = Path("oracle.yaml")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="ORACLE_CONFIG",
        metavar="FILE",
        help="The configuration: chain, storage, brokers, keys. [default: oracle.yaml where you are]",
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        envvar="ORACLE_PASSWORD_FILE",
        metavar="FILE",
        help="The password, on the file's first line. Asked for where it is not given.",
    ),
]
Keystore = Annotated[
    Path | None,
    typer.Option("--keystore", metavar="FILE", help="The wallet that signs. [default: the configuration's]"),
]


def run(main: Coroutine[Any, Any, T]) -> T:
    """The one place where the event loop runs."""
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def password_from(path: Path | None, what: str, *, new: bool = False) -> Password:
    """From the file, or asked for on the terminal when it is needed; Refused `password.missing` where there is none."""
    from oracle.passwords import password_file

    if path is not None:
        return password_file(path)

    def ask() -> str:
        if not sys.stdin.isatty():
            raise Refused(
                "password.missing", f"{what} needs a password", hint="Give --password-file, or set ORACLE_PASSWORD_FILE"
            )
        return str(typer.prompt(f"Password for {what}", hide_input=True, confirmation_prompt=new, err=True))

    return ask


def read_config(path: Path | None) -> ClientConfig:
    from oracle.config import read_client_config

    if path is None:
        path = DEFAULT_CONFIG
        if not path.exists():
            raise Refused(
                "config.missing", "no configuration was given", hint="Give --config FILE, or set ORACLE_CONFIG"
            )
    return read_client_config(path)


def open_wallet(config: ClientConfig | None, keystore: Path | None, password: Path | None) -> SigningKey:
    """The wallet that signs: the given keystore, or the configuration's."""
    from oracle.keys import load_wallet

    path = keystore or (config.keystore if config else None)
    if path is None:
        raise Refused(
            "wallet.missing", "no wallet was given", hint="Give --keystore FILE, or name it in the configuration"
        )
    return load_wallet(path, password_from(password or (config.password_file if config else None), str(path)))


def open_result_key(config: ClientConfig, path: Path | None, password: Path | None) -> SealingKey:
    """The HPKE key that opens results: the given one, or the configuration's."""
    from oracle.keys import load_hpke_key

    path = path or config.result_key
    if path is None:
        raise Refused(
            "result_key.missing",
            "no key to open results with was given",
            hint="Give --result-key FILE; make one with `oracle keys new hpke`",
        )
    return load_hpke_key(path, password_from(password or config.password_file, str(path)))


def make_client(
    config: ClientConfig, *, wallet: SigningKey | None = None, result_key: SealingKey | None = None
) -> Client:
    from oracle.client import Client

    return Client(config, wallet=wallet, result_key=result_key)


def parse_pairs(pairs: Sequence[str], option: str) -> dict[str, str]:
    """NAME=VALUE options, each name once."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or name in found:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE with a name of its own", param_hint=option)
        found[name] = value
    return found


def parse_id(text: str, what: str) -> bytes:
    """32 bytes in hex; Refused `digest.*`, which says that `text` is no file either, where one could stand."""
    from enclave_app.protocol.digests import parse_digest

    try:
        return parse_digest(text)
    except Refused as error:
        raise Refused(
            error.code,
            f"no such file, and no {what}'s id",
            found=repr(text[:80]),
            expected="a file, or 0x and 64 hex digits",
        ) from None


def parse_address(text: str) -> str:
    """A checksummed address; Refused `address` for anything else."""
    from pydantic import TypeAdapter, ValidationError

    from enclave_app.protocol.fields import Address

    try:
        return TypeAdapter(Address).validate_python(text)
    except ValidationError:
        raise Refused(
            "address",
            "not an address",
            found=repr(text[:60]),
            expected="0x and 40 hex digits, every one as it was given",
        ) from None


def typed_params(given: Mapping[str, str], domain: ParamDomain) -> dict[str, Any]:
    """Text from the command line as the agreed types have it; unknown names are left for the domain to refuse."""
    types = {param.name: param.type for param in domain.params}
    return {name: _typed(name, text, types.get(name, "text")) for name, text in given.items()}


def _typed(name: str, text: str, kind: str) -> Any:
    if kind == "integer":
        try:
            return int(text)
        except ValueError:
            raise Refused("params.value", f"parameter {name} is not an integer", found=repr(text[:60])) from None
    if kind == "boolean":
        if text not in ("true", "false"):
            raise Refused("params.value", f"parameter {name} is not true or false", found=repr(text[:60]))
        return text == "true"
    return text
