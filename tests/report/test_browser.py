"""The report in a real browser: what a user sees and does, from disk and behind a static server."""

import dataclasses
import functools
import http.server
import threading
from pathlib import Path

import pytest

from wtal.config.inference import InferenceSettings, ProposalPass
from wtal.datasets.interchange.names import file_names
from wtal.inference.detect import detect
from wtal.report.build import build_report
from wtal.report.payload import MAIN_ROW


@pytest.fixture(scope="module")
def report(make_data, tmp_path_factory):
    """(data, folder of its report)."""
    data = make_data()
    out = tmp_path_factory.mktemp("report") / "a report"
    build_report(out, data, bundle=False)
    return data, out


def page(report, number: int = 0) -> str:
    data, out = report
    names = file_names(video.video_id for video in data.videos)
    return (out / "videos" / f"{names[data.videos[number].video_id]}.html").as_uri()


def found_in_page(browser, row: str = MAIN_ROW):
    return browser.run(
        "const d = wtalPage.data, found = wtalPage.state.found.get(arguments[0]);"
        "return found.map((i) => [i[0], i[1], d.classes[i[2]], i[3]]);",
        row,
    )


def as_rows(detections):
    return [[d.start, d.end, d.label, d.score] for d in detections]


def same(found, expected) -> bool:
    """Equal detections: times and classes exactly, scores to the last digits (exp differs between
    libraries)."""
    found, expected = sorted(found), sorted(expected)
    return [row[:3] for row in found] == [row[:3] for row in expected] and all(
        abs(a[3] - b[3]) <= 1e-12 for a, b in zip(found, expected, strict=True)
    )


def quiet(browser) -> None:
    """No console error, no request that leaves the machine, and no hostile text that ran."""
    assert browser.complaints() == []
    at_home = ("file:", "data:", "http://127.0.0.1:", "blob:")
    assert [url for url in browser.requests() if not url.startswith(at_home)] == []
    assert browser.run("return window.hacked === undefined")


def test_video_plays_and_the_cursor_follows(browser, report):
    browser.size(1280, 1000)
    browser.complaints(), browser.requests()
    browser.open(page(report))
    browser.wait("return document.getElementById('player').readyState >= 1 && window.wtalPage")
    left = "return document.getElementById('cursor').getBoundingClientRect().left"
    start = browser.run(left)
    browser.keys(" ")
    browser.wait("return document.getElementById('player').currentTime > 0.7")
    browser.keys(" ")
    browser.wait("return document.getElementById('player').paused")
    browser.wait("return Math.abs(wtalPage.state.now - document.getElementById('player').currentTime) < 0.05")
    lane = browser.run(
        "const b = document.querySelector('.lane.scores canvas').getBoundingClientRect();return [b.left, b.width]"
    )
    now = browser.run("return document.getElementById('player').currentTime")
    assert browser.run(left) > start
    # the cursor's line is 1.5 px wide
    assert browser.run(left) == pytest.approx(lane[0] + now / 12.0 * lane[1], abs=2.0)
    quiet(browser)


def test_click_and_keyboard_seek(browser, report):
    browser.open(page(report))
    browser.wait("return document.getElementById('player').readyState >= 1 && window.wtalPage")
    box = browser.run(
        "const c = document.querySelectorAll('.lane canvas')[2]; c.scrollIntoView({block: 'center'});"
        "const b = c.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
    )
    browser.click(box[0] + box[2] * 0.5, box[1] + box[3] / 2)
    time = browser.wait("const v = document.getElementById('player'); return !v.seeking && v.currentTime")
    assert time == pytest.approx(6.0, abs=0.05)
    browser.keys("\ue014")  # right arrow: one second
    assert browser.run("return wtalPage.state.now") == pytest.approx(7.0, abs=0.06)
    browser.keys("\ue012", "\ue012")  # left arrow twice
    assert browser.run("return wtalPage.state.now") == pytest.approx(5.0, abs=0.07)
    browser.keys("\ue010")  # end
    assert browser.run("return wtalPage.state.now") == pytest.approx(12.0, abs=0.1)
    starts = sorted(d.start for d in report[0].videos[0].detections)
    browser.keys("\ue011", "n")  # home, next detection
    assert browser.run("return wtalPage.state.now") == pytest.approx(next(s for s in starts if s > 0.05), abs=0.05)
    quiet(browser)


def test_zoom_keeps_the_position_and_pages(browser, report):
    browser.open(page(report))
    browser.wait("return document.getElementById('player').readyState >= 1 && window.wtalPage")
    browser.run("wtalPage.seek(6)")
    browser.keys("+", "+")
    assert browser.run("const s = wtalPage.state; return s.to - s.from") == pytest.approx(3.0)
    assert browser.run("const s = wtalPage.state; return (s.to + s.from) / 2") == pytest.approx(6.0)
    browser.run("wtalPage.seek(11)")  # out of view: the view goes there
    assert browser.run("const s = wtalPage.state; return s.from <= 11 && 11 <= s.to")
    browser.keys("0")
    assert browser.run("const s = wtalPage.state; return [s.from, s.to]") == [0, pytest.approx(12.0, abs=1.0)]


@pytest.mark.parametrize("theta", [0.0, 0.1, 0.37, 0.45, 0.8, 0.99])
def test_slider_gives_what_predict_gives(browser, report, theta):
    data, _ = report
    browser.open(page(report))
    browser.wait("return window.wtalPage")
    browser.run(
        "const s = document.getElementById('threshold');s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
        theta,
    )
    settings = dataclasses.replace(data.inference, thresholds=(theta,))
    scores = data.scores("plain")
    for row in scores:
        expected = detect(scores[row], data.classes, settings)
        assert same(found_in_page(browser, row), as_rows(expected))
    shown = browser.run("return document.querySelectorAll('#found-body tr:not(.gone)').length")
    assert shown == len(detect(scores[MAIN_ROW], data.classes, settings))
    if theta != 0.45:
        assert "the run gives" in browser.run("return document.getElementById('change').textContent")
    browser.run("document.getElementById('threshold-reset').click()")
    assert same(found_in_page(browser), as_rows(data.videos[0].detections))


SETTINGS = {
    "defaults": InferenceSettings(),
    "absolute, many thresholds": InferenceSettings(
        scaling="absolute", thresholds=(0.2, 0.4, 0.6), class_rule="absolute", class_threshold=0.4
    ),
    "upsampled outer-inner contrast": InferenceSettings(
        upsample=4, score="oic", class_rule="top", class_top=3, gamma=0.3, nms="linear", nms_tiou=0.3
    ),
    "mean, hard": InferenceSettings(score="mean", nms="hard", nms_tiou=0.2, thresholds=(0.1, 0.5), class_threshold=0.3),
    "product and attention": InferenceSettings(
        signal="product",
        more=(ProposalPass(thresholds=(0.3, 0.6)),),
        score_signal="product",
        score_scaling="minmax",
        class_threshold=0.4,
        score_floor=0.2,
        max_detections=12,
    ),
    "short ones dropped": InferenceSettings(min_length=1.5, upsample=2, nms="none", thresholds=(0.3, 0.31, 0.6)),
    "fused": InferenceSettings(fusion="weighted", fusion_weight=0.7, class_threshold=0.4),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_page_arithmetic_is_that_of_detect(browser, make_data, tmp_path, name):
    settings = SETTINGS[name]
    data = make_data(settings if settings.fusion == "none" else dataclasses.replace(settings, fusion="none"))
    data = dataclasses.replace(data, inference=settings)
    build_report(tmp_path / "r", data, bundle=False)
    browser.open((tmp_path / "r" / "videos" / "plain.html").as_uri())
    browser.wait("return window.wtalPage")
    scores = data.scores("plain")
    browser.run(
        "const d = wtalPage.data;for (const row of d.rows) row.scores = wtalProposals.decode(row, d.classes.length);"
    )
    for row in scores:
        for theta in (None, 0.25, 0.6):
            found = browser.run(
                "const d = wtalPage.data, row = d.rows.find((r) => r.key === arguments[0]);"
                "const found = wtalProposals.detect(row, arguments[1], d);"
                "return found.map((i) => [i[0], i[1], d.classes[i[2]], i[3]]);",
                row,
                theta,
            )
            changed = settings if theta is None else dataclasses.replace(settings, thresholds=(theta,))
            # the report's scores are fused already where the run fuses
            expected = detect(scores[row], data.classes, dataclasses.replace(changed, fusion="none"))
            assert expected and same(found, as_rows(expected)), (row, theta)


def test_hostile_names_are_text(browser, report):
    data, out = report
    browser.complaints(), browser.requests()
    browser.open(page(report, 1))
    browser.wait("return window.wtalPage")
    video = data.videos[1]
    assert browser.run("return document.querySelector('h1').textContent") == video.video_id
    assert browser.run("return document.title").startswith(video.video_id[:20])
    lanes = browser.run("return Array.from(document.querySelectorAll('.lane.scores .lane-name'), (e) => e.textContent)")
    assert data.classes[3] in lanes
    cells = browser.run("return Array.from(document.querySelectorAll('#found-body td'), (e) => e.textContent)")
    assert data.classes[3] in cells
    assert "<b>x</b>.mp4" in browser.run("return document.querySelector('.warn-box:not([hidden])').textContent")
    quiet(browser)
    browser.open((out / "index.html").as_uri())
    names = browser.run("return Array.from(document.querySelectorAll('#videos tbody a'), (e) => e.textContent)")
    assert names == [v.video_id for v in data.videos]
    assert browser.run("return document.querySelector('h1').textContent") == data.title
    assert browser.run("return document.querySelectorAll('b, i').length") == 1  # the protocol's name is the only one
    quiet(browser)


def test_index_sorts_and_filters(browser, report):
    data, out = report
    browser.open((out / "index.html").as_uri())
    column = "return Array.from(document.querySelectorAll('#videos tbody tr'), (r) => r.cells[0].textContent)"
    click = (
        "const buttons = Array.from(document.querySelectorAll('#videos th button'));"
        "buttons.find((b) => b.textContent === arguments[0]).click()"
    )
    browser.run(click, "AP@0.5")  # lowest first; a video without ground truth has none and leads
    by_ap = [v.video_id for v in sorted(data.videos, key=lambda v: -1 if v.ap is None else v.ap)]
    assert [name.rstrip("!") for name in browser.run(column)] == by_ap
    browser.run(click, "Errors")
    assert browser.run(column)[0].rstrip("!") == data.videos[1].video_id
    assert browser.run("return document.querySelector('th[aria-sort]').textContent") == "Errors"
    browser.run("const f = document.getElementById('filter'); f.value = 'PLAI'; f.dispatchEvent(new Event('input'))")
    assert browser.run("return Array.from(document.querySelectorAll('#videos tbody tr:not([hidden])')).length") == 1
    assert browser.run("return document.getElementById('filter-note').textContent") == "1 of 3 videos"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_fits_the_window(browser, report, width, dark, request):
    browser.size(width, 1400, dark)
    try:
        for address in ((report[1] / "index.html").as_uri(), page(report), page(report, 1)):
            browser.open(address)
            browser.wait("return document.readyState === 'complete'")
            assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
            paper = browser.run("return getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, paper[4:-1].split(","))) < 200) == dark
            assert len(browser.screenshot()) > 10_000
        browser.open((report[1] / "index.html").as_uri())
        assert browser.run("return document.querySelector('.strip').getBoundingClientRect().width > 100")
    finally:
        browser.size(1280, 1000)


def test_bundle_behind_a_static_server(browser, make_data, tmp_path):
    out = tmp_path / "served"
    build_report(out, make_data(), bundle=True)
    assert [path.name for path in (out / "media").iterdir()] == ["plain.mp4"]

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(out)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        browser.complaints(), browser.requests()
        browser.open(f"http://127.0.0.1:{server.server_port}/index.html")
        browser.run("document.querySelector('#videos tbody a').click()")
        browser.wait("return window.wtalPage && document.getElementById('player').readyState >= 2")
        browser.keys(" ")
        browser.wait("return document.getElementById('player').currentTime > 0.2")
        quiet(browser)
        browser.open("about:blank")
    finally:
        server.shutdown()
        server.server_close()


def test_a_file_that_cannot_play_leaves_the_timeline(browser, make_data, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    data = make_data()
    first = dataclasses.replace(data.videos[0], source=broken)
    build_report(tmp_path / "r", dataclasses.replace(data, videos=(first,)), bundle=False)
    browser.open((tmp_path / "r" / "videos" / "plain.html").as_uri())
    browser.wait("return window.wtalPage && !document.getElementById('no-play').hidden")
    browser.run("wtalPage.seek(3)")
    assert browser.run("return wtalPage.state.now") == 3
    browser.complaints()


def test_without_scores_the_page_still_shows_detections(browser, make_data, tmp_path):
    data = dataclasses.replace(make_data(), scores=lambda video_id: {})
    build_report(tmp_path / "r", data, bundle=False)
    browser.open(Path(tmp_path / "r" / "videos" / "plain.html").as_uri())
    browser.wait("return window.wtalPage")
    rows = browser.run("return document.querySelectorAll('#found-body tr').length")
    assert rows == len(data.videos[0].detections) > 0
    quiet(browser)
