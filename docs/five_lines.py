"""From a video to time-stamped detections in five lines. Usage: python docs/five_lines.py RUN VIDEO [VIDEO ...]

RUN is a run folder of `wtal train`, `wtal run` or `wtal demo` (there: runs/demo).
"""

import sys

import wtal

localizer = wtal.load(sys.argv[1])
for video_id, detections in localizer.detect(sys.argv[2:]).items():
    for d in detections:
        print(f"{video_id}: {d.label} from {d.start:.2f} s to {d.end:.2f} s (score {d.score:.2f})")
