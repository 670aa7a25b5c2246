"""Who may request: a Merkle tree over addresses, as OpenZeppelin's StandardMerkleTree builds it.

Source: https://github.com/OpenZeppelin/merkle-tree. A leaf is keccak256(keccak256(abi.encode(address))); leaves are
sorted and laid from the end of a complete binary tree; an inner node is keccak256 of its children, the smaller first.
"""

from __future__ import annotations

from collections.abc import Sequence

from eth_abi.abi import encode

from enclave_app.protocol.digests import keccak
from enclave_app.protocol.errors import Refused

MAX_REQUESTERS = 100_000


def leaf(address: str) -> bytes:
    return keccak(keccak(encode(["address"], [address])))


def requesters_root(addresses: Sequence[str]) -> bytes:
    """The root that `Access.requesters` holds."""
    return merkle_tree([leaf(address) for address in _checked(addresses)])[0]


def requester_proof(addresses: Sequence[str], requester: str) -> tuple[bytes, ...]:
    """What ComputeOracle takes as proof that `requester` is among `addresses`; Refused `access.requester` otherwise."""
    listed = _checked(addresses)
    if requester not in listed:
        raise Refused("access.requester", "this address may not request under the agreement", found=requester)
    tree = merkle_tree([leaf(address) for address in listed])
    # Leaves fill the array's tail; inner nodes fill its head, so the search must not begin there.
    index = tree.index(leaf(requester), len(listed) - 1)
    proof = []
    while index:
        proof.append(tree[index - 1 if index % 2 == 0 else index + 1])
        index = (index - 1) // 2
    return tuple(proof)


def merkle_tree(leaves: Sequence[bytes]) -> list[bytes]:
    """The whole tree over leaf hashes, root first."""
    ordered = sorted(leaves)
    tree = [b""] * (2 * len(ordered) - 1)
    for index, value in enumerate(ordered):
        tree[len(tree) - 1 - index] = value
    for index in range(len(tree) - 1 - len(ordered), -1, -1):
        left, right = tree[2 * index + 1], tree[2 * index + 2]
        tree[index] = keccak(min(left, right) + max(left, right))
    return tree


def _checked(addresses: Sequence[str]) -> Sequence[str]:
    if not 1 <= len(addresses) <= MAX_REQUESTERS or len(set(addresses)) != len(addresses):
        raise Refused(
            "access.requesters", "name each requester once", found=len(addresses), expected=f"1 to {MAX_REQUESTERS}"
        )
    return addresses
