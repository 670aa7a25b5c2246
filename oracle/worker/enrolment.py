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
from oracle.chain.deploy import Deployment
from oracle.chain.enclaves import registered_enclaves
from oracle.chain.reader import EnclaveReader, IdentityRecord, Standing
from oracle.chain.sender import Sender
from oracle.chain.source import SingleSource
from oracle.errors import Permanent, Retryable
from oracle.logs import Log
from oracle.worker.enclave import UNREACHABLE, Enclave, EnclaveProcess
from oracle.worker.plan import MIN_MAX_AGE
from oracle.worker.register import Enrolled, IdentityChanged, Registrar, make_evidence, prepare, register
from oracle.worker.vouching import find_voucher

RENEW_BEFORE = 24 * 3600
"""A registration is renewed when it has less than this many seconds to live, or less than half of a shorter life."""
DEFAULT_MAX_AGE = 24 * 3600
LONGEST_PAUSE = 30.0


class Enrolment:
    """`registrar` is None where others register the enclave. `on_change` is called when the enclave is another one."""

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
    ) -> None:
        self.enclave, self._process = enclave, process
        self._sender, self._source, self._deployment = sender, source, deployment
        self._registrar, self._operator = registrar, operator
        self._on_change, self._chain_time = on_change, chain_time
        self._lock = asyncio.Lock()
        self._enrolled: Enrolled | None = None
        self._made_at = 0
        self._doubted = True
        self._overdue = False
        self._log = Log("worker.enrolment")

    def doubt(self) -> None:
        """The enclave may have restarted: ask who it is before the next use."""
        self._doubted = True

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
        if enrolled is not None and not self._doubted and not self._overdue and self._is_young(enrolled, max_age):
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

    async def _identify(self) -> None:
        try:
            identity = await self.enclave.identity()
        except Retryable as error:
            if error.code != UNREACHABLE or self._process is None or self._process.is_running():
                raise
            self._log.warning("the enclave is gone; launching it")
            await self._process.start()
            identity = await self.enclave.identity()
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
        young = standing is not None and not standing.retired and self._is_standing_young(standing, max_age, now)
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
        # Age goes by the chain's time, which stands still on an idle devnet; the next block may be as late as our clock.
        left = standing.valid_until - max(chain_time, int(time.time()))
        life = standing.valid_until - standing.evidence_at
        return chain_time - standing.evidence_at <= max_age // 2 and left > min(RENEW_BEFORE, life // 2)
