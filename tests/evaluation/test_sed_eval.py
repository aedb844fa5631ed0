"""Our sound event F1 equals sed_eval's (development extra `dev`) on random clips."""

import warnings

import numpy as np
import pytest

from wtal.datasets.annotations import Instance
from wtal.evaluation.sound_events import event_f1, segment_f1

with warnings.catch_warnings():
    # an old package: its imports warn, and warnings are errors here
    warnings.simplefilter("ignore")
    sed_eval = pytest.importorskip("sed_eval", exc_type=ImportError)

LABELS = ["a", "b", "c"]


def random_clips(seed):
    generator = np.random.default_rng(seed)
    reference, estimate = {}, {}
    for clip in range(30):
        events = []
        for _ in range(generator.integers(1, 6)):
            start = round(float(generator.uniform(0, 8)), 3)
            end = round(start + float(generator.uniform(0.1, 2)), 3)
            events.append(Instance(start, end, LABELS[generator.integers(3)]))
        moved = [
            Instance(
                round(max(0.0, e.start + float(generator.normal(0, 0.15))), 3),
                round(e.end + abs(float(generator.normal(0, 0.3))), 3),
                e.label,
            )
            for e in events
            if generator.random() < 0.9
        ]
        reference[str(clip)], estimate[str(clip)] = events, moved or events[:1]
    return reference, estimate


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_sed_eval(seed):
    import dcase_util

    reference, estimate = random_clips(seed)

    def listed(events, clip):
        return dcase_util.containers.MetaDataContainer(
            [{"filename": f"{clip}.wav", "onset": e.start, "offset": e.end, "event_label": e.label} for e in events]
        )

    event = sed_eval.sound_event.EventBasedMetrics(LABELS, t_collar=0.2, percentage_of_length=0.2)
    segment = sed_eval.sound_event.SegmentBasedMetrics(LABELS, time_resolution=1.0)
    for clip in reference:
        for metric in (event, segment):
            metric.evaluate(
                reference_event_list=listed(reference[clip], clip),
                estimated_event_list=listed(estimate[clip], clip),
            )
    for metric, ours in ((event, event_f1(reference, estimate)), (segment, segment_f1(reference, estimate))):
        overall = metric.results_overall_metrics()["f_measure"]["f_measure"]
        by_class = metric.results_class_wise_average_metrics()["f_measure"]["f_measure"]
        assert ours.micro == pytest.approx(overall, abs=1e-6)
        assert ours.macro == pytest.approx(by_class, abs=1e-6)
