"""The worker: the untrusted host around an enclave (DESIGN section 7). Start reading at pipeline.py."""
