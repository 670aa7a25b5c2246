"""Where collateral is fetched from, as brokers' and workers' configurations say it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from oracle.yamlfile import YamlModel

INTEL_PCS = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
_API = re.compile(r"/(?:sgx|tdx)/certification/v4/?$")


class PcsConfig(YamlModel):
    """Intel's service (PCS, API version 4) or a cache of it (PCCS), and the folder for what was fetched.

    `update` is which evaluation to ask for: `standard`, or `early`, which Intel publishes about a year before it becomes
    the standard. `refresh` in seconds is how often what is held is asked for again, `timeout` bounds one answer. `root_crl` is
    where the root's revocation list is: Intel's own place for Intel's service, else the PCCS's. `tls_ca` is a PEM file for a
    PCCS whose certificate no public authority issued; it protects nothing that Intel's signatures do not, but freshness.
    """

    pcs: str = INTEL_PCS
    cache: Path
    update: Literal["standard", "early"] = "standard"
    refresh: Annotated[int, Field(ge=60, le=7 * 86_400)] = 6 * 3600
    timeout: Annotated[float, Field(gt=0, le=120)] = 20.0
    root_crl: str | None = None
    tls_ca: Path | None = None

    @field_validator("pcs", "root_crl")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            plain = parts.username is None and not parts.query and not parts.fragment and parts.port != 0
        except ValueError:
            raise ValueError("the address of a PCS or PCCS cannot be read") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise ValueError("the address of a PCS or PCCS is an http:// or https:// URL without password and query")
        return url

    @property
    def base(self) -> str:
        """The service without the API's own path, which some of its configurations include."""
        return _API.sub("", self.pcs).rstrip("/")

    @property
    def root_crl_url(self) -> str:
        if self.root_crl is not None:
            return self.root_crl
        return INTEL_ROOT_CRL if self.base == INTEL_PCS else f"{self.base}/sgx/certification/v4/rootcacrl"


def under(base: Path, where: PcsConfig | Path) -> PcsConfig | Path:
    """The same with relative paths taken from `base`."""
    if isinstance(where, Path):
        return base / where
    tls_ca = None if where.tls_ca is None else base / where.tls_ca
    return where.model_copy(update={"cache": base / where.cache, "tls_ca": tls_ca})
