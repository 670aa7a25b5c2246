"""python -m enclave_app --config FILE --socket PATH [--platform DIR]"""

from __future__ import annotations

import sys

from enclave_app.launch import relaunch

relaunch(sys.argv[1:])
