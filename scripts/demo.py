"""The main job, told once for real: two hospitals, three key brokers, one enclave, one answer, and one attack refused."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_breast_cancer

from enclave_app.protocol.output import open_output  # noqa: F401  (named in the story below)
from oracle.agreement.explain import explain
