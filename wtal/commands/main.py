"""The command `wtal`: one thin subcommand a stage, each in its own file under `wtal/commands`."""

import argparse
import importlib
import keyword
import os
import signal
import sys
from collections.abc import Sequence

from feature_extraction.errors import UserError

COMMANDS = {
    # name: what `wtal --help` says of it. The code is wtal/commands/<name, - as _, a keyword with _ behind>.py.
    "demo": "render a small world of videos, then extract, train, predict, evaluate and report on it",
    "probe": "say what is in a video file, one line a file",
    "extract": "videos to a feature store",
    "extract-audio": "audio files to a feature store of log-mel frames",
    "weights": "public network weights: where they are, download, verify",
    "convert": "features or annotations of other projects into this one's formats",
    "check": "what is odd in annotations and features, or where two sources disagree",
    "train": "train from a feature store and video-level labels",
    "train-video-classifier": "NetVLAD and its family alone: which classes a video has, from features and labels",
    "sound-events": "a run's frame scores as sound events (tsv), and their F1 where strong labels are given",
    "ablate": "one of the paper's tables: every variant over several seeds, with mean and spread",
    "predict": "a trained run to detections (ActivityNet JSON)",
    "evaluate": "detections against ground truth: mAP under a named protocol",
    "diagnose": "what kind of mistakes detections make (DETAD), as tables, JSON and figures",
    "compare": "two sets of detections on the same videos, with confidence intervals",
    "pack": "a trained run as one file, for another machine",
    "report": "a run as a folder of HTML pages",
    "plot": "a figure (SVG, PNG, PDF) of a run: a video's timeline, mAP over tIoU, AP by class",
    "export": "detections for another tool: csv, vtt, label-studio, fiftyone, via, elan",
    "import": "annotations from another tool into ActivityNet JSON",
    "init": "a folder of videos and a table of labels to a configuration",
    "run": "extract, train, predict and report from one configuration; goes on where it stopped",
    "doctor": "check this machine: versions, devices, decoders, weights, write access",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code (0 done, 1 failed, 2 usage, 3 some items failed, 130/143 stopped)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="wtal",
        description="Weakly-supervised temporal action localization.",
        epilog="commands:\n" + "\n".join(f"  {name:12} {text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    chosen = parser.parse_args(arguments[:1]).command
    module = chosen.replace("-", "_") + ("_" if keyword.iskeyword(chosen) else "")
    command = importlib.import_module(f"wtal.commands.{module}")
    subparser = argparse.ArgumentParser(prog=f"wtal {chosen}", description=command.__doc__)
    command.add_arguments(subparser)
    try:
        # settings (key=value) may stand before or after options
        options = subparser.parse_intermixed_args(arguments[1:])
    except TypeError:
        # argparse cannot mix where a command has commands of its own (`wtal weights list`)
        options = subparser.parse_args(arguments[1:])
    previous = signal.signal(signal.SIGTERM, _terminated)
    try:
        return command.run(options)
    except UserError as error:
        print(f"wtal {chosen}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"wtal {chosen}: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except _Terminated:
        print(f"wtal {chosen}: terminated; the same command goes on from here", file=sys.stderr)
        return 143
    except BrokenPipeError:
        # The reader of our standard output went away (`wtal ... | head`); nothing is wrong here.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A full disk or a missing right is no bug; a file that is not there may well be one
        from feature_extraction.files import place_failure

        failure = place_failure(error)
        if failure is None:
            raise
        print(f"wtal {chosen}: {failure}", file=sys.stderr)
        return failure.exit_code
    finally:
        signal.signal(signal.SIGTERM, previous)


class _Terminated(BaseException):
    """SIGTERM, raised where the work is so that files in the making are cleaned up."""


def _terminated(signum: int, frame: object) -> None:
    raise _Terminated


if __name__ == "__main__":
    sys.exit(main())
