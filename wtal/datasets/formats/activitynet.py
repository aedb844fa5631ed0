"""ActivityNet 1.3 as BMN and its successors ship it: one JSON of annotations, one CSV of video facts."""

from pathlib import Path

from feature_extraction.errors import UserError
from feature_extraction.files import read_json
from wtal.datasets.annotations import AnnotationSet, video_from_json
from wtal.datasets.formats.csv_table import read_table

TABLE = "video_info_new.csv"


def read_bmn(path: Path, table: Path | None = None) -> AnnotationSet:
    """Read `anet_anno_action.json` with subsets and seconds of `table` (default: `video_info_new.csv` beside
    it).

    Ids keep their `v_`. The duration is the CSV's `seconds`; classes are in alphabetical order. Raises
    `UserError` for a missing file or column, a bad number, and videos that the table does not list (counted
    and named).
    """
    path = Path(path)
    path = path / "anet_anno_action.json" if path.is_dir() else path
    content = read_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(e, dict) and "duration_second" in e for e in content.values()
    ):
        raise UserError(f"{path}: expected {{video: {{'duration_second', 'annotations'}}}}, the layout of BMN")
    facts = _read_table(table or path.with_name(TABLE))
    if absent := [video_id for video_id in content if video_id not in facts]:
        raise UserError(
            f"{table or path.with_name(TABLE)}: {len(absent)} videos of {path.name} are not in it "
            f"({', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''})"
        )
    videos = {}
    for video_id, entry in content.items():
        subset, seconds = facts[video_id]
        fields = {"subset": subset, "duration": seconds, "annotations": entry.get("annotations")}
        videos[video_id] = video_from_json(path, video_id, fields)
    return AnnotationSet(tuple(sorted({label for v in videos.values() for label in v.labels})), videos)


def _read_table(path: Path) -> dict[str, tuple[str, float]]:
    if not path.exists():
        raise UserError(
            f"{path}: no such file; the layout needs the table of videos (video, seconds, subset), "
            "give it as data.annotations_extra"
        )
    rows = read_table(path, {name: (name,) for name in ("video", "seconds", "subset")})
    try:
        return {row["video"]: (row["subset"], float(row["seconds"])) for _, row in rows}
    except ValueError:
        raise UserError(f"{path}: a row has no number under 'seconds'") from None
