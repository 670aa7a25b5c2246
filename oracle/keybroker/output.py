"""POST /v1/output: re-seal this broker's share of a settled output to an agreed recipient (R15, R17).

Whoever asks: the answer opens for the recipient alone, so callers need no authentication, and there is no cap. Narrowing and
expiry are not looked at: nobody censors by outcome (R8).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from enclave_app.protocol import signing
from enclave_app.protocol.digests import sha256
from enclave_app.protocol.hpke import PublicKey
from enclave_app.protocol.manifest import Manifest
from enclave_app.protocol.release import (
    OutputAnswer,
    OutputBody,
    recipient_digests,
    seal_output_share,
)
from enclave_app.protocol.shares import OutputBinding, open_shares, read_share_list
from enclave_app.protocol.structs import Enclaves, Outcome, RegisteredIdentity, TaskState
from oracle.agreement.consent import check_activated
from oracle.agreement.outputs import check_output, check_recipients, check_result
from oracle.agreement.terms import Identify, Terms
from oracle.chain.reader import EnclaveRecord, TaskOnChain
from oracle.errors import Refused, Retryable
from oracle.keybroker.chains import Chains
from oracle.keybroker.keys import BrokerKeys
from oracle.keybroker.ledger import Ledger
from oracle.keybroker.limits import Limiter
from oracle.keybroker.log import OutputReleased
from oracle.keybroker.terms import check_share_list, read_terms
from oracle.keybroker.view import OutputView, read_output

MAX_ANSWERED = 4096


class OutputReleaser:
    def __init__(self, keys: BrokerKeys, chains: Chains, ledger: Ledger, identify: Identify, limiter: Limiter) -> None:
        self._limiter = limiter
        self._keys, self._chains, self._ledger, self._identify = keys, chains, ledger, identify
        self._answered: OrderedDict[bytes, OutputAnswer] = OrderedDict()

    async def output(self, body: OutputBody) -> OutputAnswer:
        """R17: this broker's share of one output's key, sealed to `body.recipient`, or the rule that forbids it."""
        access = self._chains.served(body.chain)
        terms = read_terms(body.chain, body.agreement, body.request, self._keys.card, self._identify)
        check_success(terms, body)
        agreed, settled = terms.agreement.outputs[body.output], body.result.outputs[body.output]
        manifest = check_output(agreed, settled, body.manifest)
        recipient = check_recipient(terms, body)
        signer = check_shares_statement(terms, body, manifest)
        view = await read_output(access, terms, signer)
        check_activated(terms, view.agreement)
        check_settled(terms, body, view.task)
        check_registered(view.enclaves, body.enclave, terms.agreement.tee)
        self._limiter.owners(agreed.owners, "output")
        # The same question gets the same answer without another entry: callers are anyone, and the log is a disk.
        question = sha256(terms.task_id + manifest.id + recipient.digest + body.shares.shares)
        answer = self._answered.get(question)
        if answer is None:
            answer = await asyncio.to_thread(self._seal, terms, body, manifest, recipient)
            await self._ledger.append(self._entry(terms, body, manifest, recipient, signer, answer, view))
            self._answered[question] = answer
            if len(self._answered) > MAX_ANSWERED:
                self._answered.popitem(last=False)
        return answer

    def _seal(self, terms: Terms, body: OutputBody, manifest: Manifest, recipient: PublicKey) -> OutputAnswer:
        shares = read_share_list(body.share_list, manifest.id, body.shares.shares)
        check_share_list(shares, terms.agreement, len(manifest.keys))
        binding = OutputBinding(
            chain_id=terms.chain.chain_id,
            oracle=terms.agreement.oracle,
            agreement_id=terms.agreement_id,
            task_id=terms.task_id,
            output=manifest.id,
        )
        x, (share,) = open_shares(shares, self._keys.sealing, binding)
        sealed = seal_output_share(
            terms.chain, terms.agreement, body.shares, self._keys.card.digest, recipient, x, share
        )
        return OutputAnswer(sealed=sealed)

    def _entry(
        self,
        terms: Terms,
        body: OutputBody,
        manifest: Manifest,
        recipient: PublicKey,
        signer: str,
        answer: OutputAnswer,
        view: OutputView,
    ) -> OutputReleased:
        return OutputReleased(
            agreement_id=terms.agreement_id,
            task_id=terms.task_id,
            output=body.output,
            output_id=manifest.id,
            recipient=recipient.digest,
            signer=signer,
            answer=sha256(answer.sealed),
            block_number=view.block.number,
            block_hash=view.block.hash,
        )


def check_success(terms: Terms, body: OutputBody) -> None:
    """R17: the result is one of this task, a success, and has the output that is asked for."""
    check_result(terms, body.result)
    if body.result.outcome != Outcome.SUCCEEDED:
        raise Refused("result.outcome", "a task that failed has no outputs", found=body.result.outcome)
    if not body.output < len(body.result.outputs) == len(terms.agreement.outputs):
        raise Refused("result.outputs", "the result does not have the agreement's outputs", found=body.output)


def check_recipient(terms: Terms, body: OutputBody) -> PublicKey:
    """R15: the recipient is the agreement's, or the request's where the agreement leaves it to that."""
    recipient = PublicKey(body.recipient)
    recipients, result_key = terms.agreement.outputs[body.output].recipients, terms.request.result_key
    if recipient.digest not in recipient_digests(recipients, result_key):
        raise Refused("output.recipient", "this key is no agreed recipient of the output", found=recipient.digest.hex())
    check_recipients(terms.agreement.outputs[body.output], body.result.outputs[body.output], terms.request.result_key)
    return recipient


def check_shares_statement(terms: Terms, body: OutputBody, manifest: Manifest) -> str:
    """R17: an enclave signed for this share list of this output; gives the key that did."""
    said = body.shares
    if (said.agreement_id, said.task_id) != (terms.agreement_id, terms.task_id):
        raise Refused("output.shares_task", "a share list's statement is for another task", found=said.task_id.hex())
    if said.output_id != manifest.id:
        raise Refused(
            "output.shares_output", "a share list's statement is for another output", found=said.output_id.hex()
        )
    return signing.recover(said.typed_digest(terms.chain.oracle_domain(terms.agreement)), body.shares_signature)


def check_settled(terms: Terms, body: OutputBody, task: TaskOnChain) -> None:
    """R17: nobody reads a sealed result that was not settled."""
    if task.state in (TaskState.NONE, TaskState.REQUESTED):
        raise Retryable("output.not_settled", "the task is not settled at the confirmed block", found=task.state.name)
    if task.state != TaskState.FULFILLED:
        raise Refused("output.no_result", "the task ended without a result", found=task.state.name)
    digest = body.result.typed_digest(terms.chain.oracle_domain(terms.agreement))
    if not task.settled_with(digest):
        raise Refused("output.result", "the chain settled another result", found=digest.hex()[:62])


def check_registered(enclaves: tuple[EnclaveRecord, ...], identity: RegisteredIdentity, tee: Enclaves) -> None:
    """R17: whoever signed the share list is, or was, a registered enclave of the agreement's measurements under its anchors.

    The registry has the digest only, so the caller says what is behind it."""
    registered = any(enclave.digest == identity.digest for enclave in enclaves)
    if not registered or identity.measurement not in tee.measurements:
        raise Refused("output.signer", "the share list is not signed by an enclave that the agreement takes")
