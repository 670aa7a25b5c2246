"""What can go wrong with the sandbox itself."""

from __future__ import annotations

from enclave_app.protocol.errors import Permanent


class SandboxError(Permanent):
    """This machine cannot give the isolation that R6 asks for, so the enclave does not start."""
