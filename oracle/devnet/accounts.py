"""A devnet's people: a wallet and an HPKE key each, made new, in files like anybody's."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.signing import SigningKey
from oracle.chain.rpc import Rpc, as_int
from oracle.errors import Permanent, RpcFault
from oracle.keys import create_hpke_key, create_wallet, load_hpke_key, load_wallet

SCRYPT_N = 1 << 12
"""A devnet's passwords lie beside its keystores, so a costly derivation would protect nothing."""


@dataclass(frozen=True)
class Account:
    """`wallet` and `hpke` are open; the paths are their files."""

    name: str
    wallet: SigningKey
    hpke: SealingKey
    keystore: Path
    hpke_file: Path
    password_file: Path


def open_account(directory: Path, name: str) -> Account:
    """The account `name` under `directory`, made there if it is new."""
    directory.mkdir(parents=True, exist_ok=True)
    keystore, hpke_file = directory / f"{name}.wallet.json", directory / f"{name}.hpke.json"
    password_file = directory / f"{name}.password"
    if not password_file.exists():
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe(18) + "\n")
    text = password_file.read_text().strip()

    def password() -> str:
        return text

    if not keystore.exists():
        create_wallet(keystore, password, n=SCRYPT_N)
    if not hpke_file.exists():
        create_hpke_key(hpke_file, password, n=SCRYPT_N)
    return Account(
        name, load_wallet(keystore, password), load_hpke_key(hpke_file, password), keystore, hpke_file, password_file
    )


async def give_ether(rpc_url: str, address: str, wei: int) -> int:
    """Add to an address' balance, as anvil does on request; returns what it holds then, in wei.

    Raises Permanent `devnet.fund` where the chain does not do that.
    """
    rpc = Rpc(rpc_url)
    try:
        held = as_int(await rpc.call("eth_getBalance", address, "latest")) + wei
        await rpc.call("anvil_setBalance", address, hex(held))
    except RpcFault as fault:
        raise Permanent(
            "devnet.fund", "this chain gives no ether away", found=fault.message, hint="Only a devnet does"
        ) from None
    finally:
        await rpc.close()
    return held
