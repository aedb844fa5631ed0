"""Weakly-supervised temporal action localization: which action happens from when to when, learnt from video labels.

The interface is `wtal.api`; nothing of it is imported before it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wtal.api import Detection, Localizer, VideoScores, export, load, read, report, train

__all__ = ["Detection", "Localizer", "VideoScores", "__version__", "export", "load", "read", "report", "train"]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("wtal")
    if name == "report":
        # the room of that name can be called
        return importlib.import_module("wtal.report")
    if name in __all__:
        return getattr(importlib.import_module("wtal.api"), name)
    raise AttributeError(f"module 'wtal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
