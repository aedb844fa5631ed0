"""Where the checkout lies, and the real data beside it, which may not be there."""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("WTAL_SHARED_DATA", ROOT / ".." / "shared" / "data"))


def tool(name: str) -> ModuleType:
    """A script of tools/, imported as one beside it would import it."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)
