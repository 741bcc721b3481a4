"""Reference data beside the repository: `../shared/golden`, which a clone alone does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "golden"
GOLDEN: Path | None = _FOLDER if _FOLDER.is_dir() else None

requires_golden = pytest.mark.skipif(GOLDEN is None, reason="needs the reference data in ../shared/golden")
