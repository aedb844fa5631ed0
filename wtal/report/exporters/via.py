"""VIA 3 (VGG Image Annotator, video): one project file for all videos; times in seconds."""

from collections.abc import Sequence
from pathlib import Path

from feature_extraction.files import write_json
from wtal.report.interchange import LabelledVideo, class_names

TEXT, SELECT = 1, 4
"""VIA's attribute types."""
VIDEO = 4
"""VIA's file type."""
BY_NAME, BY_FILE_URL = 1, 3
"""VIA's `loc`: chosen by the user from disk, or opened from a `file:` URL."""


def export(videos: Sequence[LabelledVideo], out: Path) -> list[Path]:
    """`via_project.json`: attribute 1 is the class (a choice of all labels), attribute 2 the score."""
    path = out / "via_project.json"
    write_json(path, project(videos))
    return [path]


def project(videos: Sequence[LabelledVideo]) -> dict:
    """The project as VIA saves it. `video_id` beside `fname` is ours: two videos may have equal file
    names."""
    options = {str(number): label for number, label in enumerate(class_names(videos), 1)}
    option_of = {label: number for number, label in options.items()}
    ids = [str(number) for number in range(1, len(videos) + 1)]
    metadata = {}
    for fid, video in zip(ids, videos, strict=True):
        for k, i in enumerate(video.intervals, 1):
            values = {"1": option_of[i.label]} | ({} if i.score is None else {"2": repr(float(i.score))})
            metadata[f"{fid}_{k}"] = {"vid": fid, "flg": 0, "z": [i.start, i.end], "xy": [], "av": values}
    return {
        "project": {
            "pid": "__VIA_PROJECT_ID__",
            "rev": "__VIA_PROJECT_REV_ID__",
            "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
            "pname": "wtal detections",
            "creator": "wtal",
            "created": 0,
            "data_format_version": "3.1.1",
            "vid_list": ids,
        },
        "config": {
            "file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}},
            "ui": {
                "file_content_align": "center",
                "file_metadata_editor_visible": True,
                "spatial_metadata_editor_visible": False,
                "temporal_segment_metadata_editor_visible": True,
                "spatial_region_label_attribute_id": "",
                "gtimeline_visible_row_count": "4",
            },
        },
        "attribute": {
            "1": _attribute("class", SELECT, options),
            "2": _attribute("score", TEXT, {}),
        },
        "file": {
            fid: {
                "fid": fid,
                "fname": video.media_name,
                "type": VIDEO,
                "loc": BY_NAME if video.source is None else BY_FILE_URL,
                "src": "" if video.source is None else video.source.absolute().as_uri(),
                "video_id": video.video_id,
            }
            for fid, video in zip(ids, videos, strict=True)
        },
        "view": {fid: {"fid_list": [fid]} for fid in ids},
        "metadata": metadata,
    }


def _attribute(name: str, kind: int, options: dict[str, str]) -> dict:
    return {
        "aname": name,
        "anchor_id": "FILE1_Z2_XY0",
        "type": kind,
        "desc": name,
        "options": options,
        "default_option_id": "",
    }
