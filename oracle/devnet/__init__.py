"""Everything on one machine: a chain, the contracts, brokers, an enclave, a worker. For development, tests and the demo."""

from oracle.devnet.network import Devnet, Options

__all__ = ["Devnet", "Options"]
