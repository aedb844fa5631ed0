"""The sandbox's world and features, made where a command needs them and they are not there.

Legend: nothing here is an array.
"""

import sys
from pathlib import Path

from feature_extraction.errors import RunFailure
from wtal.config.load import Config
from wtal.config.shipped import config_file, resolve


def make_sandbox(name: str, config: Config) -> None:
    """Render and extract what the shipped configuration `sandbox` reads, where its annotations or features are not
    there; into the folder that `wtal demo` uses, which finds it.

    Nothing for other configurations, and where what is read lies elsewhere (`data.annotations=...`). Raises `UserError`
    where a world of other settings is there.
    """
    annotations, features = Path(config.data.annotations), Path(config.data.features)
    world = annotations.parent
    if config_file(name) != config_file("sandbox") or annotations.name != "annotations.json":
        return
    if annotations.is_file() and (not (world / "world.json").is_file() or any(features.glob("*/stream.json"))):
        return
    from feature_extraction.pipeline.run import extract
    from wtal.datasets.sandbox.render import render_world

    print(
        f"the sandbox is not in {world} yet: rendering and extracting it (about a minute and a half)", file=sys.stderr
    )
    render_world(world, config.sandbox)
    failed = extract(world / "videos", features, config.extraction, resolve=resolve).failed
    if failed:
        raise RunFailure(f"the sandbox's own videos could not be read: {failed}")
