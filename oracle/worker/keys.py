"""The worker's keys, from the files that its configuration names."""

from __future__ import annotations

from eth_account.signers.local import LocalAccount

from enclave_app.protocol.signing import SigningKey
from oracle.chain.sender import account_of
from oracle.errors import Bug
from oracle.keys import load_raw_key, load_wallet
from oracle.passwords import password_file
from oracle.worker.config import KeySource


def signing_key(source: KeySource) -> SigningKey:
    """Raises Refused `keystore.*`, `key.*` or `file.read`."""
    if source.key_file is not None:
        return load_raw_key(source.key_file)
    if source.keystore is None or source.password_file is None:
        raise Bug("config.key", "a key source names no file")
    return load_wallet(source.keystore, password_file(source.password_file))


def account(source: KeySource) -> LocalAccount:
    """The same key as an account that signs transactions."""
    return account_of(signing_key(source))
