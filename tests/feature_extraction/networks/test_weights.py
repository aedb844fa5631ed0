"""The weights table and the way to a file, with a server on this machine that breaks off, lies or is away."""

import hashlib
import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from feature_extraction.errors import RunFailure, UserError
from feature_extraction.networks import weights
from wtal.commands.main import main

CONTENT = bytes(range(256)) * 3000 + b"the end"


class Server:
    """Serves `files`; each path may have a list of faults, one used up by each request."""

    def __init__(self):
        self.files = {"/good.bin": CONTENT, "/bad.bin": CONTENT[:-1] + b"!", "/range/good.bin": CONTENT}
        self.faults = {}
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.answer(self)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def url(self, path):
        return f"http://127.0.0.1:{self.http.server_port}{path}"

    def answer(self, handler):
        asked = handler.headers.get("Range")
        self.requests.append((handler.path, asked))
        queue = self.faults.get(handler.path, [])
        fault = queue.pop(0) if queue else None
        body = self.files.get(handler.path)
        handler.close_connection = True
        if isinstance(fault, int) or body is None:
            handler.send_response(404 if body is None else fault)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked and fault != "no ranges":
            if start >= len(body):
                handler.send_response(416)
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            first = start + (1 if fault == "other range" else 0)
            handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            body = body[start:]
        else:
            handler.send_response(200)
        if fault != "no length":
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 3] if fault == "break" else body)


@pytest.fixture
def server():
    one = Server()
    yield one
    one.http.shutdown()
    one.http.server_close()
    one.thread.join()


@pytest.fixture
def entry(server, monkeypatch, tmp_path):
    """Adds `tiny` to the table, at the addresses given; the cache is a fresh folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(weights.VARIABLE, raising=False)

    def add(*paths, name="tiny"):
        digest = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
        urls = tuple(server.url(path) for path in paths)
        file = weights.WeightFile(f"{name}.pt", (f"{name}_other.pt",), urls, digest, "a test")
        monkeypatch.setitem(weights.TABLE, name, file)
        return weights.cache_folder() / f"{name}.pt"

    return add


def test_the_cache_is_below_the_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.cache_folder() == tmp_path / ".cache" / "wtal" / "weights"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_hash_is_that_of_git(tmp_path):
    for size in (0, 1, weights.CHUNK_BYTES, 3 * weights.CHUNK_BYTES + 5):
        path = tmp_path / "blob"
        path.write_bytes((CONTENT * 5)[:size])
        command = ["git", "hash-object", "--no-filters", str(path)]
        wanted = subprocess.run(command, capture_output=True, check=True, text=True)
        assert weights.git_sha1(path) == wanted.stdout.strip()


def test_the_table_is_well_formed():
    hashes = [entry.git_sha1 for entry in weights.TABLE.values()]
    assert len(set(hashes)) == len(hashes) == 4
    for entry in weights.TABLE.values():
        assert len(entry.git_sha1) == 40 and int(entry.git_sha1, 16)
        assert entry.urls and all(url.startswith("https://") for url in entry.urls)


def test_download_and_second_call(server, entry):
    target = entry("/good.bin")
    assert weights.locate("tiny") == target and target.read_bytes() == CONTENT
    assert weights.locate("tiny") == target
    assert weights.fetch("tiny") == target
    assert server.requests == [("/good.bin", None)]
    assert sorted(path.name for path in target.parent.iterdir()) == [".tiny.pt.lock", "tiny.pt"]


def test_broken_connections_are_gone_on_with(server, entry):
    target = entry("/good.bin")
    server.faults["/good.bin"] = ["break", "break", 503, "break"]
    assert weights.fetch("tiny", pause=0.0).read_bytes() == CONTENT
    size = len(CONTENT)
    first = size // 3
    second = first + (size - first) // 3
    third = second + (size - second) // 3
    asked = [None, *(f"bytes={start}-" for start in (first, second, second, third))]
    assert [ask for _, ask in server.requests] == asked
    assert target.is_file()


def test_a_later_process_goes_on_from_the_part(server, entry):
    target = entry("/good.bin")
    server.faults["/good.bin"] = ["break"] + [503] * weights.ATTEMPTS
    with pytest.raises(RunFailure, match="HTTP 503"):
        weights.fetch("tiny", pause=0.0)
    part = target.with_name("tiny.pt.part")
    assert not target.exists() and part.stat().st_size == len(CONTENT) // 3
    server.requests.clear()
    assert weights.fetch("tiny", pause=0.0).read_bytes() == CONTENT
    assert server.requests == [("/good.bin", f"bytes={len(CONTENT) // 3}-")] and not part.exists()


@pytest.mark.parametrize("fault", ["no ranges", "other range"])
def test_servers_without_true_ranges_still_give_the_right_file(server, entry, fault):
    entry("/good.bin")
    server.faults["/good.bin"] = ["break", fault]
    assert weights.fetch("tiny", pause=0.0).read_bytes() == CONTENT


def test_an_answer_without_a_length(server, entry):
    entry("/good.bin")
    server.faults["/good.bin"] = ["no length"]
    assert weights.fetch("tiny", pause=0.0).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"something else", CONTENT, CONTENT + b"more", CONTENT[:-1] + b"!"])
def test_whatever_lies_in_the_part_the_file_is_right(server, entry, left):
    target = entry("/good.bin")
    target.parent.mkdir(parents=True)
    target.with_name("tiny.pt.part").write_bytes(left)
    assert weights.fetch("tiny", pause=0.0).read_bytes() == CONTENT


def test_wrong_bytes_are_never_kept(server, entry):
    target = entry("/bad.bin", "/missing.bin")
    with pytest.raises(RunFailure, match="expected") as caught:
        weights.fetch("tiny", pause=0.0)
    message = str(caught.value)
    assert "\n" not in message and "HTTP 404" in message and weights.TABLE["tiny"].git_sha1 in message
    assert "put it into" in message
    assert [path.name for path in target.parent.iterdir()] == [".tiny.pt.lock"]


def test_the_next_address_is_tried(server, entry):
    entry("/missing.bin", "/bad.bin", "/range/good.bin")
    assert weights.fetch("tiny", pause=0.0).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/missing.bin", "/bad.bin", "/range/good.bin"]


def test_no_server_at_all(entry, server, monkeypatch):
    entry("/good.bin")
    gone = weights.WeightFile("tiny.pt", (), ("http://127.0.0.1:9/x",), "0" * 40, "a test")
    monkeypatch.setitem(weights.TABLE, "tiny", gone)
    with pytest.raises(RunFailure, match="refused"):
        weights.fetch("tiny", pause=0.0)


def test_a_damaged_file_in_the_cache_is_fetched_again(server, entry):
    target = entry("/good.bin")
    target.parent.mkdir(parents=True)
    target.write_bytes(b"damaged")
    assert weights.fetch("tiny").read_bytes() == CONTENT


def test_fetches_at_the_same_time_download_once(server, entry):
    target = entry("/good.bin")
    workers = [threading.Thread(target=weights.fetch, args=("tiny",)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert target.read_bytes() == CONTENT and len(server.requests) == 1


def test_offline_says_what_to_do(server, entry):
    target = entry("/good.bin")
    with pytest.raises(UserError) as caught:
        weights.locate("tiny", offline=True)
    message = str(caught.value)
    for part in (server.url("/good.bin"), weights.TABLE["tiny"].git_sha1, str(target.parent), "--weights"):
        assert part in message
    assert "\n" not in message and server.requests == [] and caught.value.exit_code == 2


def test_order_of_the_places(server, entry, monkeypatch, tmp_path):
    cached = entry("/good.bin")
    asked, variable = tmp_path / "asked", tmp_path / "variable"
    for folder in (asked, variable, cached.parent):
        folder.mkdir(parents=True)
        (folder / "tiny.pt").write_text(folder.name)
    monkeypatch.setenv(weights.VARIABLE, str(variable))
    assert weights.find("tiny", asked) == asked / "tiny.pt"
    assert weights.find("tiny") == variable / "tiny.pt"
    (variable / "tiny.pt").rename(variable / "tiny_other.pt")
    assert weights.find("tiny") == variable / "tiny_other.pt"
    (variable / "tiny_other.pt").unlink()
    assert weights.find("tiny") == cached
    assert weights.find("tiny", asked / "tiny.pt") == asked / "tiny.pt"  # a file is taken as it is
    cached.unlink()
    assert weights.find("tiny") is None and server.requests == []


def test_places_asked_for_are_never_passed_over(entry, monkeypatch, tmp_path):
    entry("/good.bin")
    with pytest.raises(UserError, match="no such file or folder"):
        weights.find("tiny", tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds none of tiny.pt, tiny_other.pt \(for tiny\)"):
        weights.find("tiny", tmp_path)
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"\$WTAL_WEIGHTS .*no such"):
        weights.find("tiny")
    with pytest.raises(UserError, match="unknown weights 'tinny'; the names are i3d-rgb"):
        weights.locate("tinny")


def test_command_line(server, entry, capsys, tmp_path):
    target = entry("/good.bin")
    assert main(["weights", "fetch", "--offline", "tiny"]) == 2
    assert "downloads are off" in capsys.readouterr().err
    assert main(["weights", "fetch", "tiny", "nonsense"]) == 2
    assert "unknown weights 'nonsense'" in capsys.readouterr().err and not target.exists()
    assert main(["weights", "fetch", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "tiny", "state": "here", "path": str(target)}]

    assert main(["weights", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(weights.TABLE) and rows["tiny"]["path"] == str(target)
    assert rows["i3d-rgb"]["state"] == "absent" and rows["i3d-rgb"]["urls"][0].startswith("https://")
    assert main(["weights", "list"]) == 0
    assert rows["i3d-flow"]["git_sha1"] in capsys.readouterr().out

    copy = tmp_path / "renamed.bin"
    copy.write_bytes(CONTENT)
    assert main(["weights", "verify", "tiny", str(copy), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["state"]) for row in rows] == [("tiny", "right"), ("tiny", "right")]
    target.write_bytes(b"damaged")
    assert main(["weights", "verify"]) == 3
    out = capsys.readouterr().out
    assert "tiny               wrong" in out and weights.git_sha1(target) in out
    copy.write_bytes(b"own weights")
    assert main(["weights", "verify", str(copy)]) == 0
    assert "unknown" in capsys.readouterr().out
    assert main(["weights", "verify", str(tmp_path / "absent.pt")]) == 2
    assert "absent.pt: cannot be read" in capsys.readouterr().err


def test_verify_fails_for_other_content_under_a_published_name(server, entry, capsys, tmp_path):
    entry("/good.bin")

    def verify(*arguments):
        code = main(["weights", "verify", *map(str, arguments), "--json"])
        return code, [(row["name"], row["state"]) for row in json.loads(capsys.readouterr().out)]

    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "flow_imagenet.pt").write_bytes(CONTENT)  # another's content, known
    assert verify(folder / "flow_imagenet.pt") == (3, [("i3d-flow", "wrong")])
    (folder / "tiny.pt").write_bytes(b"none")
    assert verify(folder / "tiny.pt")[0] == 3
    (folder / "film.mp4").write_bytes(b"none")
    assert verify(folder / "film.mp4") == (0, [(str(folder / "film.mp4"), "unknown")])
    assert verify("tiny", "--weights", folder / "film.mp4") == (3, [("tiny", "wrong")])
    (folder / "film.mp4").write_bytes(CONTENT)
    assert verify("tiny", "--weights", folder / "film.mp4") == (0, [("tiny", "right")])
    assert verify("i3d-rgb", "--weights", folder / "film.mp4")[0] == 3
    (folder / "i3d_rgb.safetensors").write_bytes(CONTENT)  # a name of people's folders, that says less
    assert verify("i3d-rgb", "--weights", folder)[0] == 0
