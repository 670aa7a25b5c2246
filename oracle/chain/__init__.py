"""The chain: JSON-RPC, contract bindings, reads at one block, sending. Nothing here is trusted alone (R13)."""
