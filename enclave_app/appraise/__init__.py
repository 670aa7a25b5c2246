"""Evidence that no contract can check, taken apart and verified: AMD SEV-SNP and AWS Nitro (RFC 9334: the Verifier).

Pure: endorsements, the root's digest and the clock are passed in. The verifier enclave and `oracle.attestation` both call it.
"""
