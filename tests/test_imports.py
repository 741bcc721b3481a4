"""Imports go one way; the package stays cheap to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "bianque"

# What each part of the package may import, besides itself. `texts`, `errors`, `settings`, `tokenization` are leaves.
LEAVES = {"texts", "errors", "settings", "tokenization"}
BELOW_ENGINE = LEAVES | {"cpu_kernels", "models", "quantization"}
BELOW_MANAGER = BELOW_ENGINE | {"engine"}
BELOW_CONSULTATION = BELOW_MANAGER | {"manager"}
ALLOWED = {
    "__init__": set(),
    "texts": set(),
    "errors": {"texts"},
    "settings": {"errors"},
    "tokenization": {"errors"},
    "models": {"errors", "tokenization"},
    "cpu_kernels": set(),
    "quantization": {"cpu_kernels", "errors", "models"},
    "engine": {"cpu_kernels", "errors", "models", "quantization"},
    "manager": BELOW_MANAGER,
    "consultation": BELOW_CONSULTATION,
    "minis": BELOW_CONSULTATION | {"consultation"},
    "ui": BELOW_CONSULTATION | {"consultation"},
    "corpus": LEAVES | {"consultation"},
    "finetune": BELOW_CONSULTATION | {"consultation", "corpus"},
    "evaluation": BELOW_CONSULTATION | {"consultation", "corpus", "minis"},
    "cli": BELOW_CONSULTATION | {"consultation", "corpus", "evaluation", "finetune", "minis", "ui"},
    "__main__": {"cli"},
}


def imported_parts(path: Path) -> set[str]:
    """Return the parts of the package that a module imports, at its top or inside functions."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            pieces = name.split(".")
            if pieces[0] == "bianque" and len(pieces) > 1 and not pieces[1].startswith("__"):
                parts.add(pieces[1])
    return parts


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    part = part_of(path)
    assert part in ALLOWED, f"{part} is new: say in ALLOWED what it may import"
    assert imported_parts(path) - {part} <= ALLOWED[part]


def test_an_upward_import_would_be_seen(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("def f():\n    from bianque.ui import blocks\n", encoding="utf-8")
    assert imported_parts(module) == {"ui"}


def test_only_settings_read_the_environment():
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in [*PACKAGE.rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and ast.unparse(node.value) == "os"
    }
    # The package itself reads nothing: it sets what torch will read.
    assert readers <= {"bianque/settings.py", "bianque/__init__.py"}


def test_no_remote_code_and_no_unsafe_unpickling():
    for path in [*PACKAGE.rglob("*.py"), ROOT / "app.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert keywords.get("trust_remote_code", "False") == "False", path
                if ast.unparse(node.func) == "torch.load":
                    assert keywords.get("weights_only") == "True", path


def test_package_is_cheap_to_import():
    heavy = "{'torch', 'gradio', 'transformers'}"
    script = f"import sys, bianque.errors, bianque.settings; print(sorted({heavy} & set(sys.modules)))"
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert printed.strip() == "[]"
