"""python -m tests.chaos.enclave_main CONTROL --config … : the enclave program, its boundaries wrapped.

The sources are the very ones that are measured, so it is the same enclave to everyone. It is not relaunched with an empty
environment, which is what lets this wrapper in; nothing of `oracle` may be imported here, as in the program itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.chaos.points import Points


def main() -> int:
    points = Points(Path(sys.argv[1]), "enclave")
    import enclave_app.main as program

    serve = program._serve_tasks

    async def serve_wrapped(*args: Any) -> int:
        # After the fork, as the program's own imports: the sandbox's zygote must not carry them.
        import enclave_app.agreed
        import enclave_app.execution as execution
        import enclave_app.identity
        import enclave_app.tasks as tasks

        points.wrap(enclave_app.identity.EnclaveIdentity, "create", "identity.create")
        points.wrap(enclave_app.identity.EnclaveIdentity, "evidence")
        points.wrap(tasks.Tasks, "start")
        points.wrap(tasks, "fetch_materials")
        points.wrap(tasks, "make_requests")
        points.wrap(tasks.Tasks, "run")
        points.wrap(tasks, "gather", "open_answers")
        points.wrap(execution.Executor, "run", "execute")
        points.wrap(execution.Executor, "_tables", "decode")
        points.wrap(execution.Executor, "_compute", "compute")
        points.wrap(tasks, "seal_all", "seal")
        points.wrap(tasks, "sign_result", "sign")
        points.wrap(tasks.Tasks, "file")
        points.wrap(tasks.Tasks, "forget")
        points.tell()
        return await serve(*args)

    setattr(program, "_serve_tasks", serve_wrapped)  # noqa: B010 (its type says one signature)
    return program.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
