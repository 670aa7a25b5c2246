"""Collateral in operation: fetching what Intel publishes about a platform, keeping it, and saying when it ends.

Unlike `oracle.attestation`, which is pure, this package reaches for network, disk and clock. Nothing it fetches is trusted:
it is checked to the root before it is kept, and again wherever evidence is verified with it.
"""

from oracle.collateral.cache import Cache
from oracle.collateral.check import Evaluation, check_collateral, check_evaluations
from oracle.collateral.config import INTEL_PCS, PcsConfig
from oracle.collateral.pcs import Evaluations, Feed, Pcs
from oracle.collateral.pieces import Piece, pieces
from oracle.collateral.platform import Platform, platform_of
from oracle.collateral.source import CollateralFiles, CollateralSource, FetchedCollateral, collateral_ends, open_source

__all__ = [
    "INTEL_PCS",
    "Cache",
    "CollateralFiles",
    "CollateralSource",
    "Evaluation",
    "Evaluations",
    "Feed",
    "FetchedCollateral",
    "Pcs",
    "PcsConfig",
    "Piece",
    "Platform",
    "check_collateral",
    "check_evaluations",
    "collateral_ends",
    "open_source",
    "pieces",
    "platform_of",
]
