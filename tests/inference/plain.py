"""Inference written straight from its definition, one loop after another: the oracle of the vectorised
code."""

import math


def runs(signal, threshold):
    """(start, end exclusive) of the runs strictly above `threshold` in a list of numbers."""
    found, start = [], None
    for position, value in enumerate([*signal, -math.inf]):
        if value > threshold and start is None:
            start = position
        if not value > threshold and start is not None:
            found.append((start, position))
            start = None
    return found


def contrast(signal, start, end, ratio):
    """Outer-inner contrast as the public repositories compute it (their `e` is the last position,
    inclusive)."""
    last, length = end - 1, end - start
    outer_start, outer_last = (
        max(0, int(start - ratio * length)),
        min(len(signal) - 1, int(last + ratio * length)),
    )
    inner = sum(signal[start:end]) / length
    outer = [*signal[outer_start:start], *signal[last + 1 : outer_last + 1]]
    return inner - (sum(outer) / len(outer) if outer else 0.0)


def tiou(a, b, added=0.0):
    """tIoU of (start, end) pairs, exact or with something `added` to every length."""
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]) + added)
    union = a[1] - a[0] + b[1] - b[0] + 2 * added - inter
    return inter / union if inter else 0.0


def suppress(items, method, sigma, threshold, added=0.0, negative=False):
    """NMS of one class; `items` are (start, end, score), the result is in the order of picking."""
    left, kept = list(items), []
    while left:
        best = max(range(len(left)), key=lambda i: left[i][2])
        start, end, score = left.pop(best)
        kept.append((start, end, score))
        after = []
        for s, e, value in left:
            overlap = tiou((start, end), (s, e), added)
            if method == "hard" and overlap and overlap >= threshold:
                continue
            if method == "gaussian" and (value > 0 or negative):
                value *= math.exp(-(overlap**2) / sigma)
            if method == "linear" and overlap > threshold and (value > 0 or negative):
                value *= 1 - overlap
            after.append((s, e, value))
        left = after
    return kept
