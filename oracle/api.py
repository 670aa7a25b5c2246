"""A client from a configuration file alone: what a program needs to ask and to open an answer."""

from __future__ import annotations

from pathlib import Path

from oracle.agreement.document import AgreementDocument, read_document
from oracle.client import Client
from oracle.config import ClientConfig, read_client_config
from oracle.errors import Refused
from oracle.keys import load_hpke_key, load_wallet
from oracle.passwords import Password, password_file


def connect(config: Path | str, *, password: Password | None = None) -> Client:
    """A client with the wallet and the result key that the file names, opened with its password file, or with `password`.

    Use it as `async with connect("oracle.yaml") as client`. Raises Refused `yaml.*`, `password.missing` where keys are named
    and neither a password file nor `password` is given, and what opening them raises.
    """
    settings = read_client_config(Path(config))
    wallet = result_key = None
    if settings.keystore is not None:
        wallet = load_wallet(settings.keystore, _password(settings, password))
    if settings.result_key is not None:
        result_key = load_hpke_key(settings.result_key, _password(settings, password))
    return Client(settings, wallet=wallet, result_key=result_key)


def read_agreement(path: Path | str) -> AgreementDocument:
    """An agreement's file, as `Client.request` takes it; its signatures are checked. Raises Refused `document.*`, `file.*`."""
    return read_document(Path(path))


def _password(settings: ClientConfig, given: Password | None) -> Password:
    if given is not None:
        return given
    if settings.password_file is None:
        raise Refused(
            "password.missing",
            "the configuration names keys, and no password",
            hint="Name a passwordFile, or give connect a password",
        )
    return password_file(settings.password_file)
