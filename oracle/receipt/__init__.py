"""Receipts: what a settled task leaves for strangers, and how they check it, offline (DESIGN 3).

`links.py` is the chain of commitment, one function a link; `onchain.py` adds what the chain recorded.
"""

from oracle.receipt.document import MAX_RECEIPT, Receipt, read_receipt, read_receipt_file
from oracle.receipt.links import LINKS, Expected
from oracle.receipt.make import Papers, make_receipt
from oracle.receipt.onchain import CHAIN_LINKS, verify_with_chain
from oracle.receipt.verify import LinkReport, Report, Verdict, verify_receipt

__all__ = [
    "CHAIN_LINKS",
    "LINKS",
    "MAX_RECEIPT",
    "Expected",
    "LinkReport",
    "Papers",
    "Receipt",
    "Report",
    "Verdict",
    "make_receipt",
    "read_receipt",
    "read_receipt_file",
    "verify_receipt",
    "verify_with_chain",
]
