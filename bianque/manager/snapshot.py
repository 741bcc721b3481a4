"""From a repo id or a folder to local files whose presence has been checked.

Downloads are left to huggingface_hub: its cache, token, endpoint and offline switch all apply. Only weights,
configuration and tokenizer files are asked for, never code.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from bianque.errors import SnapshotError
from bianque.manager.registry import Family
from bianque.settings import ModelSource

logger = logging.getLogger(__name__)

ALLOWED_PATTERNS = ["*.json", "pytorch_model*.bin", "model*.safetensors", "spiece.model", "ice_text.model"]
TOKENIZER_FILES: dict[Family, str] = {"t5": "spiece.model", "chatglm": "ice_text.model"}
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def resolve_snapshot(source: ModelSource) -> Path:
    """Return the local folder of a model, downloading it when `source` names a Hub repo.

    Raises:
        SnapshotError: when a path does not exist, or the Hub cannot give the repo.
    """
    folder = Path(source.location).expanduser()
    if folder.is_dir():
        return folder
    if not _is_repo_id(source.location):
        raise SnapshotError("snapshot_folder_missing", folder=folder)

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, IncompleteSnapshotError

    try:
        return Path(snapshot_download(source.location, revision=source.revision, allow_patterns=ALLOWED_PATTERNS))
    except (HfHubHTTPError, HFValidationError, IncompleteSnapshotError, OSError) as error:
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise SnapshotError("snapshot_not_cached", repo_id=source.location, reason=reason) from error


def check_snapshot(folder: Path, family: Family) -> None:
    """Check that `folder` describes `family` and that every file it needs is there.

    Raises:
        SnapshotError: naming the file that is missing or unreadable, or the architecture found instead.
    """
    config = read_json(folder, "config.json")
    model_type = config.get("model_type")
    if model_type != family:
        raise SnapshotError("snapshot_wrong_architecture", folder=folder, expected=family, got=model_type)
    _require(folder, TOKENIZER_FILES[family])
    if any((folder / name).is_file() for name in WEIGHT_FILES):
        return
    for index_name in INDEX_FILES:
        if (folder / index_name).is_file():
            weight_map = read_json(folder, index_name).get("weight_map")
            if not isinstance(weight_map, dict):
                raise SnapshotError("snapshot_config_invalid", folder=folder, file=index_name, reason="no weight_map")
            for shard in sorted(set(weight_map.values())):
                _require(folder, shard)
            return
    raise SnapshotError("snapshot_file_missing", folder=folder, file=" / ".join((*WEIGHT_FILES, *INDEX_FILES)))


def read_json(folder: Path, name: str) -> dict:
    """Return the JSON object in `folder / name`.

    Raises:
        SnapshotError: if the file is missing or is not a JSON object.
    """
    _require(folder, name)
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SnapshotError("snapshot_config_invalid", folder=folder, file=name, reason=str(error)[:120]) from error
    if not isinstance(content, dict):
        raise SnapshotError("snapshot_config_invalid", folder=folder, file=name, reason="not a JSON object")
    return content


def _require(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise SnapshotError("snapshot_file_missing", folder=folder, file=name)


def _is_repo_id(location: str) -> bool:
    """Whether `location` has the form owner/name; a path with a dot, a tilde or more parts is a folder."""
    parts = location.split("/")
    return len(parts) == 2 and all(parts) and not location.startswith((".", "~")) and "\\" not in location
