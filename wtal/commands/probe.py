"""Say what is in video files, one line a file: codec, size, frames a second, duration, what is unusual."""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a video file, or a folder of them")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(options: argparse.Namespace) -> int:
    """Print one line a file; exit 3 where some cannot be read."""
    from dataclasses import asdict

    from feature_extraction.errors import PartialFailure
    from feature_extraction.video.listing import list_videos
    from feature_extraction.video.read import UnreadableVideo, choose_decoder, probe

    bad = []
    for place in options.videos:
        files = [file.path for file in list_videos(place)] if Path(place).is_dir() else [Path(place)]
        for path in files:
            try:
                info = probe(path)
            except UnreadableVideo as error:
                bad.append(str(path))
                if options.json:
                    print(json.dumps({"path": str(path), "error": str(error)}, ensure_ascii=False))
                else:
                    print(f"{path}: unreadable: {error}")
                continue
            decoder = choose_decoder(info, "auto")
            if options.json:
                print(json.dumps({"path": str(path), **asdict(info), "decoder": decoder}, ensure_ascii=False))
                continue
            facts = [
                f"{info.codec} {info.pixel_format}",
                f"{info.width}x{info.height}",
                f"{info.fps:.3f} fps" if info.fps else "fps not stated",
                f"{info.duration:.2f} s" if info.duration else "duration not stated",
            ]
            if info.frames:
                facts.append(f"{info.frames} frames")
            if info.rotation:
                facts.append(f"shown turned by {info.rotation} degrees")
            if info.audio:
                facts.append("with sound")
            print(f"{path}: {', '.join(facts)}; decoder {decoder}")
    if bad:
        raise PartialFailure(f"{len(bad)} unreadable: {', '.join(bad)}")
    return 0
