"""Log-mel features of audio files (or of the sound of videos) into a feature store; a stopped run goes on."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="AUDIO", help="a folder of audio or video files, or one file")
    parser.add_argument("--out", type=Path, required=True, metavar="STORE", help="feature store to write")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="a setting, for example --set sample_rate=22050 --set mels=128 --set stack=1",
    )


def run(options: argparse.Namespace) -> int:
    from feature_extraction.audio import AudioSettings, extract_audio
    from feature_extraction.errors import PartialFailure
    from wtal.config.strict import build, override

    settings = build(AudioSettings, override({}, options.set))
    done, failed = 0, {}
    for key, problem in extract_audio(options.source, options.out, settings):
        if problem is None:
            done += 1
        else:
            failed[key] = problem
    print(f"{options.out}: {done} files extracted")
    if failed:
        name, reason = next(iter(failed.items()))
        raise PartialFailure(
            f"{len(failed)} files failed, first {name}: {reason}; all are in {options.out / 'failures.jsonl'}"
        )
    return 0
