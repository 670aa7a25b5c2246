"""From the brokers' answers to the keys of one task (R11, R12, R13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enclave_app.agreed import Materials
from enclave_app.identity import EnclaveIdentity
from enclave_app.protocol.errors import Refused, Retryable
from enclave_app.protocol.release import ReleaseAnswer, SignedRelease, open_answer
from enclave_app.protocol.shares import check_share, key_ids_digest, recover_key
from enclave_app.protocol.structs import ReleaseRequest
from enclave_app.protocol.wire import Blame, TaskBody

KeyId = tuple[int, int]
"""(dataset index, key index)."""


class TooFewShares(Retryable):
    """Fewer than `t` brokers gave good shares; more may come. Withholding and mixing up answers is the host's to do."""


@dataclass(frozen=True)
class Released:
    """The task's keys in order, whose answers they came from, and whose were wrong."""

    keys: dict[KeyId, bytes]
    used: tuple[bytes, ...]
    blamed: tuple[Blame, ...]

    def __repr__(self) -> str:
        return f"Released({len(self.keys)} keys)"


def make_requests(body: TaskBody, task_id: bytes, nonce: bytes, identity: EnclaveIdentity) -> tuple[SignedRelease, ...]:
    """One signed request per broker of the agreement, in its order, all answering to one nonce (R12)."""
    domain = body.chain.oracle_domain(body.agreement)
    requests = [
        ReleaseRequest(
            agreement_id=body.request.agreement_id,
            task_id=task_id,
            broker=broker.hpke_key,
            nonce=nonce,
            sealing_key=identity.sealing.public.digest,
            anchor=body.anchor,
        )
        for broker in body.agreement.keys.brokers
    ]
    return tuple(SignedRelease(request=r, signature=identity.signer.sign(r.typed_digest(domain))) for r in requests)


def gather(
    body: TaskBody,
    materials: Materials,
    releases: Sequence[SignedRelease],
    answers: Sequence[ReleaseAnswer],
    identity: EnclaveIdentity,
) -> Released:
    """The keys from any `t` good answers; wrong ones are left out and blamed (R11). Raises TooFewShares, and `Refused`
    where good shares make a key that the dataset never committed to."""
    wanted = materials.released_keys(body.agreement)
    good: dict[int, dict[KeyId, bytes]] = {}
    blamed: list[Blame] = []
    brokers = [broker.hpke_key for broker in body.agreement.keys.brokers]
    for answer in answers:
        broker = answer.statement.broker
        try:
            if broker not in brokers:
                raise Refused("release.broker", "an answer is from a broker that the agreement does not name")
            position = brokers.index(broker)
            shares = _open(body, materials, releases[position].request, position, answer, wanted, identity)
        except Refused as error:
            blamed.append(Blame(broker=broker, code=error.code))
        else:
            good.setdefault(position + 1, shares)
    threshold = body.agreement.keys.threshold
    if len(good) < threshold:
        raise TooFewShares(
            "release.too_few",
            "too few brokers gave good shares",
            found=f"{len(good)} good, wrong: " + (", ".join(f"0x{b.broker.hex()} {b.code}" for b in blamed) or "none"),
            expected=f"at least {threshold}",
            hint="Ask the other brokers, or ask again",
        )
    chosen = sorted(good)[:threshold]
    keys = {
        (d, k): recover_key({x: good[x][d, k] for x in chosen}, threshold, materials.manifests[d].keys[k])
        for d, k in wanted
    }
    return Released(keys, tuple(brokers[x - 1] for x in chosen), tuple(blamed))


def _open(
    body: TaskBody,
    materials: Materials,
    asked: ReleaseRequest,
    position: int,
    answer: ReleaseAnswer,
    wanted: Sequence[KeyId],
    identity: EnclaveIdentity,
) -> dict[KeyId, bytes]:
    """What one broker answered (R11): its own shares, of the keys that were asked for, as committed to."""
    if answer.statement.keys != key_ids_digest(wanted):
        raise Refused("release.keys", "a broker's statement names other keys than were asked for")
    x, shares = open_answer(
        answer,
        chain=body.chain,
        agreement=body.agreement,
        request=asked,
        datasets=body.request.versions,
        signer=identity.signer.address,
        broker_signer=body.agreement.keys.brokers[position].signer,
        key=identity.sealing,
    )
    # That they are shares of the wanted keys, the two comparisons of the statement's digest have shown.
    if x != position + 1:
        raise Refused("release.keys", "a broker's answer holds another broker's shares", found=x, expected=position + 1)
    for (dataset, key), share in shares.items():
        check_share(materials.share_lists[dataset], x, key, share)
    return shares
