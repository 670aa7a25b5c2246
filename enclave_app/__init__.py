"""The trusted program: everything in this package is measured (R3) and runs inside the enclave.

It imports nothing of `oracle`. The untrusted side imports only `enclave_app.protocol`, the pure module of both sides.
"""
