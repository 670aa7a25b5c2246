"""What people do with the contracts, from deployment to withdrawal, on two EVMs: anvil's, and Hardhat's with --all."""

from __future__ import annotations
