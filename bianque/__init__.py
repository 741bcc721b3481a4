"""BianQue Space: an open home for the BianQue (扁鹊) proactive-health chat models.

The package is cheap to import: heavy libraries (torch, transformers, gradio) are imported by the modules that use
them, so that `python -m bianque --help` answers at once.
"""

from __future__ import annotations

import os

__version__ = "0.1.0"
__all__ = ["__version__"]

# Before torch is loaded, which reads it then: its threads would otherwise spin between two operations, on the cores
# that the kernels of `cpu_kernels` want for theirs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
