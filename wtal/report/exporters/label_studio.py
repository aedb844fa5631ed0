"""Label Studio: `tasks.json` with a prediction for each video, and the labelling configuration that it needs.

Label Studio's video timeline counts frames from 1 at the `frameRate` of the configuration, which is one
number for a whole project. Frame f stands for the time (f - 1) / frameRate, so that start and end come back
to within half a frame.
"""

from collections.abc import Sequence
from pathlib import Path

from feature_extraction.files import atomic_write, write_json
from wtal.report.interchange import FRAME_RATE, LabelledVideo, class_names
from wtal.report.xml import attribute


def export(videos: Sequence[LabelledVideo], out: Path) -> list[Path]:
    """The frame rate is the videos' own where all agree, else 25: times are right either way."""
    rates = {video.frame_rate for video in videos}
    rate = rates.pop() if len(rates) == 1 else FRAME_RATE
    config, tasks = out / "label_config.xml", out / "tasks.json"
    with atomic_write(config, "w") as stream:
        stream.write(labelling_config(class_names(videos), rate))
    write_json(tasks, [task(number, video, rate) for number, video in enumerate(videos, 1)])
    return [tasks, config]


def labelling_config(labels: Sequence[str], rate: float) -> str:
    """The project's labelling interface: a timeline of `labels` under the video."""
    rows = "".join(f"    <Label value={attribute(label)}/>\n" for label in labels)
    return (
        '<View>\n  <TimelineLabels name="videoLabels" toName="video">\n'
        f"{rows}  </TimelineLabels>\n"
        f'  <Video name="video" value="$video" frameRate="{rate:g}" timelineHeight="120"/>\n</View>\n'
    )


def task(number: int, video: LabelledVideo, rate: float) -> dict:
    """One task. `data` also carries what the way back needs: the video's id and the frame rate."""
    regions = [
        {
            "id": f"{number}-{k}",
            "from_name": "videoLabels",
            "to_name": "video",
            "type": "timelinelabels",
            "origin": "prediction",
            "value": {
                "ranges": [
                    {
                        "start": to_frame(i.start, rate),
                        "end": max(to_frame(i.start, rate), to_frame(i.end, rate)),
                    }
                ],
                "timelinelabels": [i.label],
            },
            **({} if i.score is None else {"score": float(i.score)}),
        }
        for k, i in enumerate(video.intervals, 1)
    ]
    scores = [i.score for i in video.intervals if i.score is not None]
    prediction = {
        "model_version": "wtal",
        "result": regions,
        **({"score": float(max(scores))} if scores else {}),
    }
    data = {
        "video": f"/data/local-files/?d={video.media_name}",
        "video_id": video.video_id,
        "frame_rate": rate,
    }
    if video.duration is not None:
        data["duration"] = video.duration
    return {"id": number, "data": data, "predictions": [prediction]}


def to_frame(seconds: float, rate: float) -> int:
    """Time to frame number, counted from 1."""
    return round(seconds * rate) + 1
