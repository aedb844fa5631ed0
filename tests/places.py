"""Where the checkout lies, and the real data beside it, which may not be there."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("WTAL_SHARED_DATA", ROOT / ".." / "shared" / "data"))
