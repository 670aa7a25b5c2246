"""What the worker pays for gas, as its configuration says it.

fees:
  maxFeePerGas: 500 gwei          # the most a transaction offers; above it, sending waits
  maxPriorityFeePerGas: 10 gwei   # the most of that which goes to the block's maker, at first
  replaceSeconds: 60              # a transaction that is next and not mined by then is replaced, an eighth dearer

Amounts are whole numbers of wei, or a number with `gwei` behind it.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from oracle.chain.fees import GWEI, Caps
from oracle.yamlfile import YamlModel

_GWEI: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?gwei")


def _wei(value: Any) -> Any:
    """`30 gwei` in wei; what is written otherwise is for pydantic to judge."""
    found = _GWEI.fullmatch(value) if isinstance(value, str) else None
    return value if found is None else int(Decimal(found[1]) * GWEI)


Wei = Annotated[int, Field(gt=0, lt=1 << 96), BeforeValidator(_wei)]


class FeesConfig(YamlModel):
    """`rebroadcastSeconds` is how often a transaction without a receipt is sent again, `displacedSeconds` how long the chain
    has to have gone past its nonce until it is given up, `watchSeconds` how often mined ones are looked at until they are
    final."""

    max_fee_per_gas: Wei = 500 * GWEI
    max_priority_fee_per_gas: Wei = 10 * GWEI
    replace_seconds: float = Field(default=60.0, gt=0)
    rebroadcast_seconds: float = Field(default=10.0, gt=0)
    displaced_seconds: float = Field(default=30.0, ge=0)
    watch_seconds: float = Field(default=5.0, gt=0)

    def caps(self) -> Caps:
        return Caps(self.max_fee_per_gas, self.max_priority_fee_per_gas)
