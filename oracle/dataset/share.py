"""Sharing: a sealed dataset's keys split for the brokers that the parties chose; an act of its own (R10)."""

from __future__ import annotations

from collections.abc import Sequence

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.hpke import PublicKey
from enclave_app.protocol.manifest import Manifest
from enclave_app.protocol.shares import MAX_SHARE_LIST, DatasetBinding, ShareList, make_share_list, random_coefficients
from enclave_app.protocol.structs import Chain
from oracle.dataset.keyfile import DatasetKeys


def share_dataset(
    manifest: Manifest, keys: DatasetKeys, chain: Chain, owner: str, brokers: Sequence[PublicKey], threshold: int
) -> ShareList:
    """A share list for `brokers`, of whom `threshold` are needed, bound to chain, registry, owner and dataset (R10).

    Every call splits afresh. Raises Refused `keys.dataset`, `share.brokers`, `share.threshold`, `share.size`.
    """
    keys.check(manifest)
    check_brokers(brokers, threshold)
    binding = DatasetBinding(
        chain_id=chain.chain_id, registry=chain.agreement_registry, owner=owner, dataset=manifest.id
    )
    shares = make_share_list(manifest.id, keys.keys, threshold, brokers, binding, random_coefficients(threshold))
    if (size := len(shares.canonical())) > MAX_SHARE_LIST:
        # Said here, because those who read share lists could only refuse it.
        raise Refused(
            "share.size",
            "so many columns for so many brokers make too large a share list",
            found=size,
            expected=f"at most {MAX_SHARE_LIST} bytes",
            hint="Seal fewer columns, or choose fewer brokers",
        )
    return shares


def check_brokers(brokers: Sequence[PublicKey], threshold: int) -> None:
    """Refused `share.brokers` or `share.threshold` for a choice that nothing can be shared by."""
    if not 1 <= len(brokers) <= 16:
        raise Refused("share.brokers", "not a number of brokers", found=len(brokers), expected="1 to 16")
    if len({broker.digest for broker in brokers}) != len(brokers):
        raise Refused("share.brokers", "the same broker is named twice", hint="Each broker holds one share")
    if not 1 <= threshold <= len(brokers):
        raise Refused(
            "share.threshold", "not a number of brokers to need", found=threshold, expected=f"1 to {len(brokers)}"
        )
