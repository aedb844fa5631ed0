"""The HTML report and the figures of a run. The room can be called, because `wtal.report(run)` is `wtal.api.report`."""

import sys
import types
from pathlib import Path


class _Room(types.ModuleType):
    def __call__(self, run: str | Path, out: str | Path | None = None, *, bundle: bool = False) -> Path:
        """The HTML report of a run that has predictions; returns its index page. As `wtal report`."""
        from wtal.report.build import report_run
        from wtal.training.folder import RunFolder

        return report_run(RunFolder(Path(run)), None if out is None else Path(out), bundle=bundle)


sys.modules[__name__].__class__ = _Room
