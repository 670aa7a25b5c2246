"""Keeps the enclave registered: who it is now, with evidence young enough for the agreements it serves.

Each boot of an enclave is a new identity (R1), so whenever it may have restarted its identity is asked for again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from enclave_app.protocol.signing import SigningKey
from enclave_app.protocol.structs import Confirmation
from enclave_app.protocol.wire import RetireBody
from oracle.chain.abi import load
from oracle.chain.deploy import Deployment
from oracle.chain.enclaves import registered_enclaves
from oracle.chain.reader import EnclaveReader, IdentityRecord, Standing
from oracle.chain.sender import Sender
from oracle.chain.source import SingleSource
from oracle.errors import Permanent, Retryable
from oracle.logs import Log
from oracle.worker.enclave import QUICK, TIMEOUT, UNREACHABLE, Enclave
from oracle.worker.plan import MIN_MAX_AGE
from oracle.worker.process import EnclaveProcess
from oracle.worker.register import Enrolled, IdentityChanged, Registrar, make_evidence, prepare, register
from oracle.worker.vouching import find_voucher

RENEW_BEFORE = 24 * 3600
"""A registration is renewed when it has less than this many seconds to live, or less than half of a shorter life."""
DEFAULT_MAX_AGE = 24 * 3600
LONGEST_PAUSE = 30.0
NEVER = -(1 << 63)
"""A time that is older than any age."""


class Enrolment:
    """`registrar` is None where others register the enclave. `on_change` is called when the enclave is another one.

    `probe_seconds` is how long the enclave may be silent, whatever it computes, before it is ended and launched anew.
    """

    def __init__(
        self,
        enclave: Enclave,
        process: EnclaveProcess | None,
        sender: Sender,
        source: SingleSource,
        deployment: Deployment,
        registrar: Registrar | None,
        operator: SigningKey | None,
        on_change: Callable[[], None],
        chain_time: Callable[[], int],
        probe_seconds: float = QUICK,
    ) -> None:
        self.enclave, self._process = enclave, process
        self._sender, self._source, self._deployment = sender, source, deployment
        self._registrar, self._operator = registrar, operator
        self._on_change, self._chain_time, self._probe_seconds = on_change, chain_time, probe_seconds
        self._lock = asyncio.Lock()
        self._enrolled: Enrolled | None = None
        self._made_at = 0
        self._doubted = True
        self._mistrusted = False
        self._overdue = False
        self._silent_since: float | None = None
        self._log = Log("worker.enrolment")

    def doubt(self) -> None:
        """The enclave may have restarted: ask who it is before the next use."""
        self._doubted = True

    def mistrust(self) -> None:
        """The registration may be gone or over, whatever was read of it: a reorganisation can remove it, and only the contract
        says what holds now. Look at the chain before the next use, and register again where that is needed."""
        self._mistrusted = True

    @property
    def known(self) -> Enrolled | None:
        """What was last found, however old."""
        return self._enrolled

    @property
    def process(self) -> EnclaveProcess | None:
        """The enclave's process, where it is ours to launch."""
        return self._process

    async def retire(self) -> bool:
        """Tell the registry that this identity is over: nothing that it signed and that is not settled counts any more. False
        where it is not registered. Raises Retryable, and `Reverted` where the contract refuses."""
        enrolled = self._enrolled
        if enrolled is None:
            return False
        deployment = self._deployment
        body = RetireBody(chain_id=deployment.chain_id, registry=deployment.enclave_registry)
        answer = await self.enclave.retire(body)
        call = load("EnclaveRegistry").call("retire", enrolled.anchor, enrolled.signer, answer.signature)
        key = bytes.fromhex(enrolled.signer[2:])
        receipt = await self._sender.transact(deployment.enclave_registry, call, purpose="retire", key=key)
        self._enrolled = None
        return receipt.ok

    async def renew(self) -> Enrolled:
        """Register again, however young the registration is. Raises as `current`."""
        self._overdue = True
        return await self.current()

    async def reread(self) -> Enrolled | None:
        """The same with its standing of now: anyone may have challenged it. Raises Retryable."""
        enrolled = self._enrolled
        if enrolled is None:
            return None
        head = await self._source.confirmed(Confirmation.LATEST)
        reader = EnclaveReader(self._source, self._deployment.enclave_registry)
        found = await reader.record(enrolled.anchor, enrolled.signer, head)
        if found is None or found.digest != enrolled.record.identity.digest or self._enrolled is not enrolled:
            return self._enrolled
        self._enrolled = replace(enrolled, record=IdentityRecord(enrolled.record.identity, found.standing))
        return self._enrolled

    async def current(self, max_age: int = DEFAULT_MAX_AGE) -> Enrolled:
        """The registered enclave, with evidence and registration younger than half of `max_age` seconds.

        Raises Retryable while the enclave is down or not registered: whatever is wrong with it, no task fails for it (R19).
        """
        max_age = max(max_age, MIN_MAX_AGE)
        enrolled = self._enrolled
        doubtful = self._doubted or self._mistrusted or self._overdue
        if enrolled is not None and not doubtful and self._is_young(enrolled, max_age):
            return enrolled
        async with self._lock:
            try:
                return await self._refreshed(max_age)
            except Permanent as error:
                self._log.error("the enclave cannot be registered", code=error.code, message=error.message)
                raise Retryable("enclave.unusable", f"the enclave cannot be registered: {error.message}") from error

    async def _refreshed(self, max_age: int) -> Enrolled:
        if self._doubted:
            await self._identify()
        if self._mistrusted:
            await self._look_again()
        enrolled = self._enrolled
        if enrolled is None or self._overdue or not self._is_young(enrolled, max_age):
            enrolled = await self._renew(max_age)
            self._enrolled, self._overdue = enrolled, False
        return enrolled

    async def watch(self, interval: float) -> None:
        """Until cancelled: notice a restarted enclave, relaunch ours when it died, renew before anything expires.

        Looks every `interval` seconds; less and less often, down to every `LONGEST_PAUSE`, while something is wrong.
        """
        pause = interval
        while True:
            await asyncio.sleep(pause)
            try:
                self.doubt()
                # Younger evidence is made for the tasks that want it: one agreement must not cost us for ever after.
                await self.current()
                pause = interval
            except Retryable as error:
                pause = min(2 * pause, LONGEST_PAUSE)
                self._log.warning("the enclave cannot be used now", code=error.code, message=error.message)

    async def _look_again(self) -> None:
        """What the registry says at the head; a registration that is not there, or not good, is made again."""
        enrolled = self._enrolled
        if enrolled is not None:
            head = await self._source.confirmed(Confirmation.LATEST)
            reader = EnclaveReader(self._source, self._deployment.enclave_registry)
            found = await reader.record(enrolled.anchor, enrolled.signer, head)
            if found is None or found.digest != enrolled.record.identity.digest:
                self._log.warning("the registration is gone from the chain", signer=enrolled.signer)
                self._enrolled = None
                # With it went a transaction of ours: the next one must not wait behind a gap for ever.
                self._sender.forget_nonce()
            else:
                self._enrolled = replace(enrolled, record=IdentityRecord(enrolled.record.identity, found.standing))
                # By the head's own time: what is over there is over, however the chain's time was guessed here.
                self._overdue = self._overdue or found.standing.retired or found.standing.valid_until < head.timestamp
                await self._look_at_evidence(enrolled)
        self._mistrusted = False

    async def _look_at_evidence(self, enrolled: Enrolled) -> None:
        """Evidence may be newer than the registration, and bind a block that a reorganisation took: no broker takes it (R2)."""
        bound = enrolled.evidence.block_number
        block = await self._source.block(bound)
        if block is None or block.hash != enrolled.evidence.block_hash:
            self._log.warning("the block that the evidence binds is gone; newer evidence is made", block=bound)
            self._made_at = NEVER

    async def _identify(self) -> None:
        began = time.monotonic()
        try:
            identity = await self.enclave.identity(self._probe_seconds)
        except Retryable as error:
            if error.code not in (UNREACHABLE, TIMEOUT) or self._process is None:
                raise
            if self._process.is_running():
                # Functions run in other processes, so an enclave that lives answers in milliseconds.
                self._silent_since = began if self._silent_since is None else self._silent_since
                if time.monotonic() - self._silent_since < self._probe_seconds:
                    raise
                self._log.error(
                    "the enclave hangs; ending it and launching it anew",
                    code=error.code,
                    seconds=round(time.monotonic() - self._silent_since, 1),
                )
                await self._process.kill()
            else:
                self._log.warning("the enclave is gone; launching it")
            await self._process.start()
            identity = await self.enclave.identity(self._probe_seconds)
        self._silent_since = None
        known = self._enrolled
        if known is not None and known.identity.signer != identity.signer:
            self._log.warning("the enclave restarted", was=known.identity.signer, signer=identity.signer)
            self._enrolled = None
            self._on_change()
        elif known is not None:
            self._enrolled = replace(known, identity=identity)
        self._doubted = False

    async def _renew(self, max_age: int) -> Enrolled:
        if self._registrar is None:
            return await self._found(max_age)
        try:
            return await self._registered(self._registrar, max_age)
        except IdentityChanged as error:
            if self._process is None:
                raise
            self._log.warning("the enclave has to start again with new keys", code=error.code, message=error.message)
            await self._process.stop()
            await self._process.start()
            self._enrolled = None
            self._on_change()
            return await self._registered(self._registrar, max_age)

    async def _registered(self, registrar: Registrar, max_age: int) -> Enrolled:
        prepared = await prepare(self.enclave, self._source, self._deployment, registrar, self._operator)
        standing, now = None if prepared.record is None else prepared.record.standing, prepared.head.timestamp
        if standing is not None and standing.retired:
            # For ever (R1): only other keys help.
            raise IdentityChanged("a retired identity", "one that may be registered")
        young = standing is not None and self._is_standing_young(standing, max_age, now)
        if standing is not None and young and not self._overdue:
            # Brokers want younger evidence than this one, or it is from before this start; that costs no transaction.
            record = IdentityRecord(prepared.identity, standing)
            enrolled = Enrolled(prepared.claimed, prepared.anchor, prepared.evidence, record)
        else:
            enrolled = await register(prepared, self._sender, self._source, self._deployment, registrar)
            self._log.info(
                "enclave registered",
                signer=enrolled.signer,
                measurement=enrolled.record.identity.measurement.hex(),
                anchor=enrolled.anchor.hex(),
                valid_until=enrolled.record.standing.valid_until,
                simulated=enrolled.identity.simulated,
            )
        self._made_at = now
        return enrolled

    async def _found(self, max_age: int) -> Enrolled:
        """Somebody else registers the enclave: its registration is looked for, and the newest that is valid counts."""
        identity = await self.enclave.identity()
        head = await self._source.confirmed(Confirmation.LATEST)
        found = await registered_enclaves(self._source, self._deployment, head, identity.signer)
        young = [e for e in found if e.valid and self._is_standing_young(e.record.standing, max_age, head.timestamp)]
        if not young:
            raise Retryable(
                "enclave.unregistered",
                "the enclave is not registered, or not for much longer, and this worker has nothing to register it with",
                found=identity.signer,
                hint="Run `oracle enclave register`",
            )
        enclave = young[-1]
        evidence, _ = await make_evidence(self.enclave, identity, self._deployment, head, self._operator)
        voucher = await find_voucher(self._source, self._deployment, head, enclave, evidence)
        self._made_at = head.timestamp
        return Enrolled(identity, enclave.anchor, evidence.model_copy(update={"voucher": voucher}), enclave.record)

    def _is_young(self, enrolled: Enrolled, max_age: int) -> bool:
        now = self._chain_time()
        return now - self._made_at <= max_age // 2 and self._is_standing_young(enrolled.record.standing, max_age, now)

    def _is_standing_young(self, standing: Standing, max_age: int, chain_time: int) -> bool:
        # By the chain's time only: a host whose clock jumps must not pay for renewals. What that misses on an idle chain, the
        # contract tells (`mistrust`).
        left = standing.valid_until - chain_time
        life = standing.valid_until - standing.evidence_at
        return chain_time - standing.evidence_at <= max_age // 2 and left > min(RENEW_BEFORE, life // 2)
