"""Videos to a feature store. What is there already is passed over, so the same command goes on after a kill."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEOS", help="a folder of videos (subfolders too), or files"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="STORE", help="the feature store's folder")
    parser.add_argument("--config", metavar="FILE", help="YAML: a training configuration (its `extraction` is used), "
                        "a file with these settings alone, or the name of a shipped configuration")  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings, e.g. fps=30 flow.warps=3"
    )
    parser.add_argument(
        "--weights", type=Path, help="file or folder of I3D weights, before $WTAL_WEIGHTS and the cache"
    )
    parser.add_argument("--offline", action="store_true", help="never download weights")
    parser.add_argument(
        "--accept-truncated", action="store_true", help="keep what is whole of videos that break off"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(options: argparse.Namespace) -> int:
    """Extract; exit 3 where videos failed."""
    import json

    from feature_extraction.errors import PartialFailure
    from feature_extraction.pipeline import extract
    from wtal.shipped import resolve

    settings = read_settings(options)
    summary = extract(
        options.videos,
        options.out,
        settings,
        resolve=resolve,
        weights=options.weights,
        offline=options.offline,
    )
    if options.json:
        print(json.dumps({
            "streams": {name: str(folder) for name, folder in summary.streams.items()}, "done": summary.done,
            "present": summary.present, "failed": summary.failed, "frames": summary.frames,
            "seconds": round(summary.seconds, 3),
        }, ensure_ascii=False))  # fmt: skip
    else:
        rate = summary.frames / summary.seconds if summary.seconds else 0.0
        print(f"{len(summary.done)} videos extracted ({summary.frames} frames, {rate:.0f} a second), "
              f"{len(summary.present)} were there, {len(summary.failed)} failed; in {options.out}")  # fmt: skip
    if summary.failed:
        named = "; ".join(f"{video_id} ({reason})" for video_id, reason in sorted(summary.failed.items()))
        raise PartialFailure(
            f"{len(summary.failed)} videos failed: {named}; see {options.out / 'failures.jsonl'}"
        )
    return 0


def read_settings(options: argparse.Namespace):
    """The extraction settings of the options."""
    import yaml

    from feature_extraction.errors import UserError
    from feature_extraction.settings import ExtractionSettings
    from wtal.shipped import config_file
    from wtal.strict import build, override

    values: dict = {}
    if options.config:
        path = config_file(options.config)
        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
        if not isinstance(loaded, dict):
            raise UserError(f"{path}: expected settings by name")
        values = loaded["extraction"] or {} if "extraction" in loaded else loaded
    values = override(values, options.set)
    if options.accept_truncated:
        values["accept_truncated"] = True
    return build(ExtractionSettings, values, "extraction")
