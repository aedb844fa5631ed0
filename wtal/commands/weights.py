"""List the public network weights, download them, or check files against their published hashes."""

import argparse
import json
from pathlib import Path

CLIP = "clip"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`wtal weights list|fetch|verify`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|fetch|verify")
    listing = actions.add_parser("list", help="every known file: where it is on this machine, address, hash")
    fetching = actions.add_parser("fetch", help="download into the cache; goes on where it broke off")
    fetching.add_argument(
        "names", nargs="+", metavar="NAME", help="a name of `wtal weights list`, or clip: the default CLIP model"
    )
    verifying = actions.add_parser("verify", help="check files against the published hashes")
    verifying.add_argument(
        "files", nargs="*", metavar="NAME|PATH", help="names or any files; default: all that are here"
    )
    for action in (listing, verifying):
        action.add_argument("--weights", type=Path, metavar="PATH", help="look here before $WTAL_WEIGHTS and the cache")
    fetching.add_argument("--offline", action="store_true", help="no download: say what is missing")
    for action in (listing, fetching, verifying):
        action.add_argument("--json", action="store_true", help="one JSON document on standard output")


def run(options: argparse.Namespace) -> int:
    """Exit code 0; 3 where `verify` found another content than a file's name, or the name asked for, says."""
    rows = {"list": _list, "fetch": _fetch, "verify": _verify}[options.action](options)
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            print(_line(row))
    return 3 if any(row.get("state") == "wrong" for row in rows) else 0


def _list(options: argparse.Namespace) -> list[dict[str, object]]:
    from feature_extraction.networks import weights

    rows: list[dict[str, object]] = []
    for name, entry in weights.TABLE.items():
        path = _find(name, options.weights)
        rows.append(
            {
                "name": name,
                "state": "here" if path else "absent",
                "path": str(path) if path else None,
                "file": entry.file,
                "git_sha1": entry.git_sha1,
                "urls": list(entry.urls),
                "note": entry.note,
            }
        )
    return rows


def _fetch(options: argparse.Namespace) -> list[dict[str, object]]:
    from feature_extraction.networks import weights
    from feature_extraction.networks.clip_models import fetch_public_clip

    for name in options.names:
        if name != CLIP:
            weights.entry_of(name)  # a typing error in the last name shows before the first download
    rows: list[dict[str, object]] = []
    for name in options.names:
        if name == CLIP:
            path = fetch_public_clip(options.offline)
        else:
            path = weights.locate(name, offline=True) if options.offline else weights.fetch(name)
        rows.append({"name": name, "state": "here", "path": str(path)})
    return rows


def _verify(options: argparse.Namespace) -> list[dict[str, object]]:
    from feature_extraction.networks import weights

    rows: list[dict[str, object]] = []
    for given in options.files or list(weights.TABLE):
        named = given in weights.TABLE
        path = _find(given, options.weights) if named else Path(given)
        if path is None:
            if options.files:
                weights.locate(given, options.weights, offline=True)  # says where to get it
            rows.append({"name": given, "state": "absent", "path": None})
            continue
        digest, known = weights.identify(path)
        published = next((name for name, entry in weights.TABLE.items() if entry.file == path.name), None)
        if published is not None:  # the file's name says what it is
            state = "right" if known == published else "wrong"
        elif named and known not in (None, given) and path.name not in weights.TABLE[given].also:
            state = "wrong"
        else:
            state = "right" if known else "unknown"
        row = {"name": known or given, "state": state, "path": str(path), "git_sha1": digest}
        if state == "wrong" and known:
            row |= {"name": published or given, "content": known}
        rows.append(row)
        if named and options.files and state == "unknown":
            row["state"] = "wrong"  # asked for by name, it must be that file
    return rows


def _find(name: str, folder: Path | None) -> Path | None:
    """As `weights.find`, but a folder without the file is no error where everything is gone through."""
    from feature_extraction.networks import weights

    if folder is not None and folder.is_dir():
        entry = weights.TABLE[name]
        here = [folder / file for file in (entry.file, *entry.also) if (folder / file).is_file()]
        return here[0] if here else weights.find(name)
    return weights.find(name, folder)


def _line(row: dict[str, object]) -> str:
    head = f"{row['name']:18} {row['state']:8}"
    if "note" in row:
        lines = (row["note"], row["path"] or row["urls"][0], f"git blob SHA-1 {row['git_sha1']}")
        return head + " " + f"\n{'':28}".join(map(str, lines))
    tail = f" git blob SHA-1 {row['git_sha1']}" if row["state"] in ("wrong", "unknown") else ""
    tail += f", which is {row['content']}" if "content" in row else ""
    return f"{head} {row['path'] or ''}{tail}".rstrip()
