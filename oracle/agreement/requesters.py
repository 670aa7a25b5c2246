"""Who may request, and how often: a Merkle tree over (address, quota), as OpenZeppelin's StandardMerkleTree builds it.

Source: https://github.com/OpenZeppelin/merkle-tree. A leaf is keccak256(keccak256(abi.encode(address, uint64))); leaves are
sorted and laid from the end of a complete binary tree; an inner node is keccak256 of its children, the smaller first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from enclave_app.protocol.digests import keccak
from enclave_app.protocol.errors import Refused
from enclave_app.protocol.onchain import Admission, admission, requester_leaf
from enclave_app.protocol.structs import ANYONE, Agreement

MAX_REQUESTERS = 100_000


def requesters_root(quotas: Mapping[str, int]) -> bytes:
    """The root that `Access.requesters` holds. `quotas` say how many tasks each address may ask for."""
    return merkle_tree([requester_leaf(*entry) for entry in _checked(quotas).items()])[0]


def requester_proof(quotas: Mapping[str, int], requester: str) -> tuple[bytes, ...]:
    """What ComputeOracle takes as proof that `requester` is among those; Refused `access.requester` otherwise."""
    listed = _checked(quotas)
    if requester not in listed:
        raise Refused("access.requester", "this address may not request under the agreement", found=requester)
    tree = merkle_tree([requester_leaf(*entry) for entry in listed.items()])
    # Leaves fill the array's tail; inner nodes fill its head, so the search must not begin there.
    index = tree.index(requester_leaf(requester, listed[requester]), len(listed) - 1)
    proof = []
    while index:
        proof.append(tree[index - 1 if index % 2 == 0 else index + 1])
        index = (index - 1) // 2
    return tuple(proof)


def admission_of(agreement: Agreement, quotas: Mapping[str, int], requester: str) -> Admission:
    """What the contract checks a request by; `quotas` are the agreed ones, where there are any.

    Raises Refused `access.requesters` where they are missing, `access.requester` for an address that is not among them.
    """
    if agreement.access.requesters == ANYONE:
        return admission(agreement)
    if not quotas:
        raise Refused(
            "access.requesters",
            "the agreement admits a fixed list of requesters, and the list was not given",
            hint="Give the agreement's file, which holds it",
        )
    proof = requester_proof(quotas, requester)
    return admission(agreement, quotas[requester], proof)


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


def _checked(quotas: Mapping[str, int]) -> Mapping[str, int]:
    if not 1 <= len(quotas) <= MAX_REQUESTERS:
        raise Refused(
            "access.requesters", "too few or too many requesters", found=len(quotas), expected=f"1 to {MAX_REQUESTERS}"
        )
    if not all(quotas.values()):
        raise Refused("access.requesters", "a requester's quota is zero: leave it out")
    return quotas
