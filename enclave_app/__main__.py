"""python -m enclave_app --config FILE --socket PATH [--platform DIR]"""

from __future__ import annotations

import sys

from enclave_app.main import main

sys.exit(main())
