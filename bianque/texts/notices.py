"""Medical notices, emergency texts and labels that duty requires (disclaimer, AI label, licences)."""

from __future__ import annotations

from bianque.texts import Text

NOTICES: dict[str, Text] = {}
