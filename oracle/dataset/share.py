"""Sharing: a sealed dataset's keys split for the brokers that the parties chose; an act of its own (R10)."""

from __future__ import annotations

from collections.abc import Sequence

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.hpke import PublicKey
from enclave_app.protocol.manifest import Manifest
from enclave_app.protocol.shares import DatasetBinding, ShareList, make_share_list, random_coefficients
from enclave_app.protocol.structs import Chain
from oracle.dataset.keyfile import DatasetKeys


def share_dataset(
    manifest: Manifest, keys: DatasetKeys, chain: Chain, owner: str, brokers: Sequence[PublicKey], threshold: int
) -> ShareList:
    """A share list for `brokers`, of whom `threshold` are needed, bound to chain, registry, owner and dataset (R10).

    Every call splits afresh. Raises Refused `keys.dataset`, `share.brokers`, `share.threshold`.
    """
    keys.check(manifest)
    if not 1 <= len(brokers) <= 16 or len({broker.digest for broker in brokers}) != len(brokers):
        raise Refused("share.brokers", "name 1 to 16 brokers, each once", found=len(brokers))
    if not 1 <= threshold <= len(brokers):
        raise Refused("share.threshold", "not a threshold", found=threshold, expected=f"1 to {len(brokers)}")
    binding = DatasetBinding(
        chain_id=chain.chain_id, registry=chain.agreement_registry, owner=owner, dataset=manifest.id
    )
    return make_share_list(manifest.id, keys.keys, threshold, brokers, binding, random_coefficients(threshold))
