"""Check this machine: versions, devices, decoders, codecs, weights, write access; what to do about problems.

Exit code 0 where nothing is wrong (notes are not wrong), 1 where something will fail.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal doctor`."""
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="where runs will be written"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of the lines")


def run(options: argparse.Namespace) -> int:
    import dataclasses
    import json

    from wtal.doctor import PROBLEM, examine

    findings = examine(options.out)
    if options.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], ensure_ascii=False, indent=1))
    else:
        for finding in findings:
            print(f"{finding.state:8} {finding.about}: {finding.text}")
            if finding.advice:
                print(f"{'':8} -> {finding.advice}")
        problems = sum(finding.state == PROBLEM for finding in findings)
        print(f"{problems} problem{'s' if problems != 1 else ''}" if problems else "nothing is wrong")
    return 1 if any(finding.state == PROBLEM for finding in findings) else 0
