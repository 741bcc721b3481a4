"""`python -m bianque`; see `bianque.cli.main`."""

from __future__ import annotations

import sys

from bianque.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
