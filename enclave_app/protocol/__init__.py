"""The protocol both sides speak: structures, digests, key sealing, messages. Pure: no clock, no network, no files.

docs/protocol.md is the same thing in words, byte for byte; tests/vectors/ holds what a second implementation must reproduce.
"""
