"""A small run's report data with real scores, and a browser without a library: chromedriver speaks plain
HTTP."""

import base64
import json
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from feature_extraction.store.grid import TimeGrid
from wtal.config.inference import InferenceSettings
from wtal.datasets.annotations import Instance
from wtal.inference.detect import detect
from wtal.inference.scores import VideoScores
from wtal.report.data import Chart, Curve, Errors, ReportData, ReportVideo, Table

HOSTILE_LABEL = "<script>window.hacked = 1</script>\"'&\n\u202eright to left\u202c " + "x" * 300
HOSTILE_ID = "a <img src=x onerror='window.hacked = 1'>\" & %2F \u202egnp"
CLASSES = ("hug", "kick", "point", HOSTILE_LABEL)
GRID = TimeGrid(12.5, 8, 4)
SECONDS = 12.0


def write_video(path: Path, seconds: float = SECONDS, fps: int = 25, size: tuple[int, int] = (96, 64)) -> Path:
    """An H.264 file whose brightness tells the time."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "12"}
        count = int(seconds * fps)
        for number in range(count):
            picture = np.full((size[1], size[0], 3), 20 + 200 * number // count, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def random_scores(seed: int, duration: float = SECONDS, attention: bool = True) -> VideoScores:
    """Smooth random scores, so that there are runs above every threshold."""
    rng = np.random.default_rng(seed)
    length = int(np.ceil(duration / GRID.snippet_seconds))
    noise = rng.normal(size=(length + 8, len(CLASSES)))
    smooth = np.stack([np.convolve(noise[:, c], np.ones(5) / 2.2, "valid") for c in range(len(CLASSES))], axis=1)
    frame_TC = (1 / (1 + np.exp(-smooth[:length]))).astype(np.float32)
    video_C = np.sort(rng.uniform(0.3, 1, len(CLASSES))).astype(np.float32)
    attention_T = rng.uniform(0, 1, length).astype(np.float32) if attention else None
    return VideoScores(frame_TC, video_C, GRID, duration, attention_T)


@pytest.fixture(scope="session")
def make_data(tmp_path_factory):
    """`make_data(settings) -> ReportData` of three videos; the first has a video file, the second is
    hostile."""
    video = write_video(tmp_path_factory.mktemp("videos") / "a 100% 'file' #1?.mp4")
    ids = ["plain", HOSTILE_ID, "unlabelled"]
    scores = {
        video_id: {row: random_scores(10 * i + j) for j, row in enumerate(("cbp_warmup", "vlp_raw", "vlp", "ours"))}
        for i, video_id in enumerate(ids)
    }
    truth = (Instance(1.0, 3.5, "hug"), Instance(2.0, 4.0, HOSTILE_LABEL), Instance(6.0, 8.0, "hug"))

    def make(settings: InferenceSettings | None = None) -> ReportData:
        settings = settings or InferenceSettings(class_threshold=0.5)
        videos = tuple(
            ReportVideo(
                video_id,
                SECONDS,
                tuple(detect(scores[video_id]["ours"], CLASSES, settings)),
                labels=() if video_id == "unlabelled" else ("hug", HOSTILE_LABEL),
                ground_truth=None if video_id == "unlabelled" else truth,
                ambiguous=((9.0, 10.0),) if video_id == "plain" else (),
                source=video if video_id == "plain" else None,
                ap=None if video_id == "unlabelled" else 0.25 + i / 2,
                errors=None if video_id == "unlabelled" else Errors(1, 2 + 3 * i, 2),
                note="the video file is gone: <b>x</b>.mp4" if video_id == HOSTILE_ID else "",
            )
            for i, video_id in enumerate(ids)
        )
        steps = tuple(range(0, 100, 10))
        row = {"mAP": {"0.3": 0.5, "0.5": 0.25}, "average_mAP": 0.375, "fg_miou": 0.5, "bg_miou": 0.75}
        return ReportData(
            title="run <b>one</b>",
            classes=CLASSES,
            videos=videos,
            scores=lambda video_id: scores[video_id],
            inference=settings,
            facts=(("Annotations", "/data/<i>x</i>/a.json"),),
            results={"cbp_warmup": row, "ours": {**row, "average_mAP": 0.5}},
            protocol="activitynet",
            charts=(
                Chart(
                    "Loss",
                    "loss",
                    (Curve("kd", steps, tuple(1 / (s + 1) for s in steps)),),
                    (("warmup", 0, 90),),
                ),
            ),
            tables=(Table("AP by class", ("Class", "AP"), tuple((name, 12.5) for name in CLASSES)),),
        )

    return make


DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Never through a proxy: chromedriver is on this machine."""


class Browser:
    """As much of the WebDriver protocol as the tests need."""

    def __init__(self, port: int, profile: Path) -> None:
        self.root = f"http://127.0.0.1:{port}/session"
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
            "--disable-background-networking --disable-component-update --disable-sync "
            "--disable-dev-shm-usage --window-size=1280,1000"
        ).split()
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": [*flags, f"--user-data-dir={profile}"]},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        answer = self.call("POST", "", {"capabilities": {"alwaysMatch": capabilities}})
        self.root += "/" + answer["sessionId"]

    def call(self, method: str, path: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with DIRECT.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None

    def open(self, address: str) -> None:
        self.call("POST", "/url", {"url": address})

    def run(self, script: str, *arguments):
        """Run a function body in the page and return what it returns."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, seconds: float = 10.0):
        """Wait until the script returns something true, and return it."""
        body = (
            "const done = arguments[arguments.length - 1]; const end = Date.now() + arguments[0] * 1000;"
            f"(function look() {{ const value = (function () {{ {script} }})();"
            "if (value || Date.now() > end) done(value); else setTimeout(look, 30); })();"
        )
        value = self.call("POST", "/execute/async", {"script": body, "args": [seconds]})
        assert value, f"never became true: {script}"
        return value

    def keys(self, *keys: str) -> None:
        """Press keys one after another, as a person does."""
        events = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": events}]})

    def click(self, x: float, y: float) -> None:
        """A mouse click at a point of the window."""
        events = [
            {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 0},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": events}
        self.call("POST", "/actions", {"actions": [mouse]})

    def devtools(self, command: str, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width: int, height: int, dark: bool = False) -> None:
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.devtools("Emulation.setEmulatedMedia", features=scheme)

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("GET", "/screenshot"))

    def complaints(self) -> list[str]:
        """Console messages since the last call, except pure information."""
        entries = self.call("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Addresses that pages asked for since the last call; the browser's own pages (its empty new tab) do
        not count, and their log may come late."""
        entries = self.call("POST", "/se/log", {"type": "performance"})
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [p["request"]["url"] for p in sent if not p["documentURL"].startswith(("chrome:", "about:"))]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium; tests that need it are skipped where it is not installed.

    It ends with the module's tests: a page that has played may keep all cores busy, even after it was left.
    """
    driver = shutil.which("chromedriver")
    if driver is None or not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no browser: chromium and chromedriver are not installed")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = next((m[1] for line in process.stdout if (m := re.search(r"successfully on port (\d+)", line))), None)
        assert port is not None, "chromedriver did not start"
        # an unread pipe would stop it once it is full
        threading.Thread(target=process.stdout.read, daemon=True).start()
        session = Browser(int(port), tmp_path_factory.mktemp("profile"))
        session.open("about:blank")
        yield session
        session.call("DELETE", "")
    finally:
        process.terminate()
        process.wait(timeout=20)
        process.stdout.close()
