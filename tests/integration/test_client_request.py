"""What a requester pays for, and to whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from enclave_app.protocol.hpke import SealingKey
from enclave_app.protocol.signing import SigningKey
from oracle.chain.rpc import as_int
from oracle.client import Client
from oracle.config import ClientConfig
from oracle.errors import Refused
from tests.worker_kit import world


@pytest.mark.parametrize("part", ["oracle", "enclave_registry"])
async def test_no_fee_goes_to_a_contract_of_the_agreements_makers(tmp_path: Path, part: str) -> None:
    """Who activates an agreement chooses its contracts; a requester signed none of it."""
    async with world(tmp_path) as place:
        theirs = place.deployment.verifiers["development"]
        agreement_id = await place.activate(await place.agreement(**{part: theirs}))
        wallet = SigningKey.generate()
        await place.rpc.call("anvil_setBalance", wallet.address, hex(10**20))
        config = ClientConfig(
            rpc=place.rpc.url, deployment=place.deployment, storage=(place.blobs.as_uri(),), brokers={}
        )
        async with Client(config, wallet=wallet, result_key=SealingKey.generate()) as client:
            with pytest.raises(Refused) as refused:
                await client.request(agreement_id)
        assert refused.value.code == "agreement.contracts"
        assert as_int(await place.rpc.call("eth_getBalance", wallet.address, "latest")) == 10**20
