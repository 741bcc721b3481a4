"""BianQue Space: an open home for the BianQue (扁鹊) proactive-health chat models.

The package is cheap to import: heavy libraries (torch, transformers, gradio) are imported by the modules that use
them, so that `python -m bianque --help` answers at once.
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
