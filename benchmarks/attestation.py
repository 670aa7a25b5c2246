"""`scripts/bench attestation`: what attestation costs on chain, in gas, and off chain, in milliseconds.

Gas is that of whole transactions as anvil's receipts have it: base, calldata and its floor (EIP-7623) included. Registrations
are of minted platforms under a development root, over the very path that Intel's root takes; `register_*` and `renew` find the
platform's certificate posted, `register_cold` posts it too. Posts are of what Intel published for recorded platforms: the
median, and the largest beside it. `off_chain_ms` is the CPU time of one verification by `oracle.attestation`, from bytes to
claims. A cost above what issue 4 requires is named, and fails the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from oracle.attestation import intel_root, parse_evidence, verify
from oracle.chain.rpc import Rpc
from tests.dcap_chain_kit import Boot, Contracts, Material, chain_at, recorded
from tests.dcap_kit import NOW, Authority, Case, sgx_case, tdx_case

REQUIRED = {
    "register_sgx": 250_000,
    "register_tdx": 250_000,
    "register_cold": 450_000,
    "post_tcb_info": 1_500_000,
}
"""Gas at most."""


async def measure(url: str, rounds: int) -> dict[str, Any]:
    rpc = Rpc(url)
    try:
        return {**await registrations(rpc, rounds), **await posts(rpc)}
    finally:
        await rpc.close()


async def registrations(rpc: Rpc, rounds: int) -> dict[str, int]:
    authority = Authority.make()
    sgx, tdx = sgx_case(authority), tdx_case(5, authority)
    contracts = await Contracts.deploy(rpc, authority.root_der)
    collateral = {**contracts.posts(Material.of(tdx)), **renamed(contracts, sgx)}
    await contracts.keep(collateral.values())
    costs: dict[str, list[int]] = {"register_sgx": [], "register_tdx": [], "register_cold": [], "renew": []}
    for case, name in ((sgx, "register_sgx"), (tdx, "register_tdx")):
        await contracts.keep([contracts.posts(Material.of(case))["pck"]])
        for _ in range(rounds):
            boot = Boot(case)
            costs[name].append(await register(contracts, boot))
            costs["renew"].append(await register(contracts, boot))
    for case in (sgx, tdx):
        for _ in range(rounds):
            fresh = replace(case, pck=authority.platform(ppid=ppid()))
            (posted,) = await contracts.keep([contracts.posts(Material.of(fresh))["pck"]])
            costs["register_cold"].append(posted.gas_used + await register(contracts, Boot(fresh)))
    return {name: int(statistics.median(found)) for name, found in costs.items()}


def renamed(contracts: Contracts, case: Case) -> dict[str, Any]:
    """Its TCB info and QE identity, beside those of the other TEE."""
    found = contracts.posts(Material.of(case))
    return {f"{name} of {case}": found[name] for name in ("tcb_info", "qe_identity")}


async def register(contracts: Contracts, boot: Boot) -> int:
    """Gas of a registration, or of a renewal where there is one already."""
    (receipt,) = await contracts.keep([contracts.register(await boot.registration(contracts))])
    return receipt.gas_used


async def posts(rpc: Rpc) -> dict[str, int]:
    """Each recorded piece once, in a store of its own collateral: gas by what is posted."""
    costs: dict[str, dict[bytes, int]] = {"post_tcb_info": {}, "post_crl": {}, "post_qe_identity": {}, "post_pck": {}}
    for each in recorded():
        material = each.material
        known = (material.tcb_info, material.pck_crl, material.qe_identity, material.pck)
        if all(piece in found for piece, found in zip(known, costs.values(), strict=True)):
            continue
        contracts = await Contracts.deploy(rpc, intel_root())
        calls = contracts.posts(material)
        receipts = dict(zip(calls, await contracts.keep(calls.values()), strict=True))
        for piece, name, found in zip(
            known, ("tcb_info", "pck_crl", "qe_identity", "pck"), costs.values(), strict=True
        ):
            found[piece] = receipts[name].gas_used
    medians = {name: int(statistics.median(found.values())) for name, found in costs.items()}
    return medians | {f"{name}_largest": max(costs[name].values()) for name in ("post_tcb_info", "post_crl")}


def off_chain(rounds: int) -> float:
    times = []
    for case in (sgx_case(), tdx_case(4), tdx_case(5)):
        quote, collateral = case.quote, case.collateral
        for _ in range(5 + rounds):
            start = time.process_time()
            verify(parse_evidence(case.tee, quote), collateral, case.root_der, NOW)
            times.append(time.process_time() - start)
    return round(1000 * statistics.median(times), 2)


def ppid() -> bytes:
    return time.monotonic_ns().to_bytes(16, "big")


def over(found: dict[str, Any]) -> Iterable[str]:
    for name, most in REQUIRED.items():
        if found[name] > most:
            yield f"{name}: {found[name]} gas, at most {most} wanted"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench attestation", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    with chain_at(NOW) as url:
        found = asyncio.run(measure(url, arguments.rounds))
    result = {"rounds": arguments.rounds, **found, "off_chain_ms": off_chain(10 * arguments.rounds)}
    if not arguments.json:
        for name, value in result.items():
            print(f"{name:>22}  {value}")
    print(json.dumps(result))
    missed = list(over(result))
    print("\n".join(missed), file=sys.stderr, end="\n" if missed else "")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
