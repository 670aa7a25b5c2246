"""The key broker: one share of each data key, released to agreed enclaves for one task at a time (DESIGN 6).

`release.py` is the main story, `checks.py` its rules; `output.py` gives settled outputs to their recipients.
"""

from oracle.card import BrokerCard, read_card
from oracle.keybroker.broker import KeyBroker, open_broker
from oracle.keybroker.config import KeyBrokerConfig, read_config, read_password
from oracle.keybroker.keys import init
from oracle.keybroker.log import LogReport, read_log, verify_log
from oracle.keybroker.server import serve

__all__ = [
    "BrokerCard",
    "KeyBroker",
    "KeyBrokerConfig",
    "LogReport",
    "init",
    "open_broker",
    "read_card",
    "read_config",
    "read_log",
    "read_password",
    "serve",
    "verify_log",
]
