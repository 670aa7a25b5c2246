"""Requester lists, against OpenZeppelin's published example and an independent reading of its verifier."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from enclave_app.protocol.errors import Refused
from enclave_app.protocol.onchain import requester_leaf
from oracle.agreement.requesters import merkle_tree, requester_proof, requesters_root

QUOTAS = {str(to_checksum_address(number.to_bytes(20, "big"))): 2 * number for number in range(1, 40)}
ADDRESSES = list(QUOTAS)


def first(count: int) -> dict[str, int]:
    return dict(list(QUOTAS.items())[:count])


def verify(root: bytes, address: str, quota: int, proof: tuple[bytes, ...]) -> bool:
    """MerkleProof.processProof, with StandardMerkleTree's double-hashed leaf."""
    computed = keccak(keccak(bytes(12) + bytes.fromhex(address[2:]) + quota.to_bytes(32, "big")))
    for sibling in proof:
        pair = computed + sibling if computed < sibling else sibling + computed
        computed = keccak(pair)
    return computed == root


def test_the_tree_is_that_of_openzeppelins_readme() -> None:
    values = [("0x" + "11" * 20, 5_000_000_000_000_000_000), ("0x" + "22" * 20, 2_500_000_000_000_000_000)]
    leaves = [keccak(keccak(encode(["address", "uint256"], value))) for value in values]
    assert merkle_tree(leaves)[0].hex() == "d4dee0beab2d53f2cc83e567171bd2820e49898130a22622b10ead383e90bd77"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 31, 39])
def test_every_listed_address_has_a_proof_of_its_quota_and_no_other_does(count: int) -> None:
    listed = first(count)
    root = requesters_root(listed)
    for address, quota in listed.items():
        proof = requester_proof(listed, address)
        assert verify(root, address, quota, proof)
        assert not verify(root, address, quota + 1, proof)
        assert not verify(root, "0x" + "ff" * 20, quota, proof)


def test_the_order_of_the_list_does_not_matter() -> None:
    assert requesters_root(QUOTAS) == requesters_root(dict(reversed(QUOTAS.items())))


def test_one_address_alone_is_its_own_leaf() -> None:
    assert requesters_root(first(1)) == requester_leaf(ADDRESSES[0], 2)


@pytest.mark.parametrize("quotas", [{}, {ADDRESSES[0]: 0}])
def test_an_empty_list_or_an_empty_quota_is_refused(quotas: dict[str, int]) -> None:
    with pytest.raises(Refused) as refused:
        requesters_root(quotas)
    assert refused.value.code == "access.requesters"


def test_an_address_that_is_not_listed_has_no_proof() -> None:
    with pytest.raises(Refused) as refused:
        requester_proof(first(3), ADDRESSES[5])
    assert refused.value.code == "access.requester"
