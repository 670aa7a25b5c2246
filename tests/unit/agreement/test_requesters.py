"""Requester lists, against OpenZeppelin's published example and an independent reading of its verifier."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from enclave_app.protocol.errors import Refused
from oracle.agreement.requesters import leaf, merkle_tree, requester_proof, requesters_root

ADDRESSES = [str(to_checksum_address(number.to_bytes(20, "big"))) for number in range(1, 40)]


def verify(root: bytes, address: str, proof: tuple[bytes, ...]) -> bool:
    """MerkleProof.processProof, with StandardMerkleTree's double-hashed leaf."""
    computed = keccak(keccak(bytes(12) + bytes.fromhex(address[2:])))
    for sibling in proof:
        pair = computed + sibling if computed < sibling else sibling + computed
        computed = keccak(pair)
    return computed == root


def test_the_tree_is_that_of_openzeppelins_readme() -> None:
    values = [("0x" + "11" * 20, 5_000_000_000_000_000_000), ("0x" + "22" * 20, 2_500_000_000_000_000_000)]
    leaves = [keccak(keccak(encode(["address", "uint256"], value))) for value in values]
    assert merkle_tree(leaves)[0].hex() == "d4dee0beab2d53f2cc83e567171bd2820e49898130a22622b10ead383e90bd77"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 31, 39])
def test_every_listed_address_has_a_proof_and_no_other_does(count: int) -> None:
    listed = ADDRESSES[:count]
    root = requesters_root(listed)
    for address in listed:
        proof = requester_proof(listed, address)
        assert verify(root, address, proof)
        assert not verify(root, "0x" + "ff" * 20, proof)


def test_the_order_of_the_list_does_not_matter() -> None:
    assert requesters_root(ADDRESSES) == requesters_root(ADDRESSES[::-1])


def test_one_address_alone_is_its_own_leaf() -> None:
    assert requesters_root(ADDRESSES[:1]) == leaf(ADDRESSES[0])


@pytest.mark.parametrize("addresses", [[], [ADDRESSES[0], ADDRESSES[0]]])
def test_an_empty_or_repeated_list_is_refused(addresses: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        requesters_root(addresses)
    assert refused.value.code == "access.requesters"


def test_an_address_that_is_not_listed_has_no_proof() -> None:
    with pytest.raises(Refused) as refused:
        requester_proof(ADDRESSES[:3], ADDRESSES[5])
    assert refused.value.code == "access.requester"
