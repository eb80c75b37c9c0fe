"""The page that answers a picture: what it says, what it refuses, and how it looks in a browser."""

import base64
import io
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

import tutored.serve
from made import SHAPE, boxed, refused, turned, two_tasks
from sleeper import make_sleeper
from tutored.checkpoint import save_checkpoint
from tutored.cli import main
from tutored.config import make_config
from tutored.labels import LabelSpace
from tutored.pictures import FORMATS
from tutored.predict import Result
from tutored.serve import is_loopback, serve
from tutored.serve.app import read_upload
from tutored.students import make_student, preprocess
from tutored.tasks.detection import Detections
from tutored.tasks.segmentation import ClassMap
from tutored.types import Prediction

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")

import anyio  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from tutored.serve import Worker  # noqa: E402
from tutored.serve.app import answer, make_app, settings  # noqa: E402


def classes_of(tasks):
    return {name: task.labels.classes for name, task in tasks.items()}


PETS = two_tasks(LabelSpace.of(["cat", "dog"]))
CLASSES = classes_of(PETS)
VALUES = {
    "score": st.one_of(st.floats(0, 1).map(str), st.just("auto")),
    "string": st.lists(st.sampled_from([*CLASSES, ""])).map(",".join),
}
"""Possible values of what is asked, by the type that the description has for it."""
HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
LEAST = 600
"""Pixels of each side that an answer needs."""
LOCAL = "http://127.0.0.1:8000"
TOO_LARGE = "the picture has more than 50 million pixels, or a side of more than 1,000,000; shrink it"
NO_PICTURE = f"not a picture that can be read; possible: {', '.join(FORMATS)}"


def half(image, size):
    """Says: the left half is a dog (.7), all of it a cat (.2); the mask is dog on the left."""
    height, width = size
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[:, : width // 2] = 2
    boxes = [[0, 0, width / 2, height], [0, 0, width, height]]
    found = boxed(Detections, boxes, [2, 1], scores=[0.7, 0.2])
    return result(image, size, PETS, found, ClassMap(mask=mask))


def result(image, size, known, *answers):
    told = Prediction.of(size, *answers)
    return Result(told.size, told.tasks, known=known, scores=dict.fromkeys(known, 0.5), source=image)


def client(predict=half, base=LOCAL, **options):
    return TestClient(make_app(partial(answer, predict, LEAST), CLASSES, **options), base_url=base)


DESCRIBED = client()


def encoded(image, kind="PNG", **options):
    written = io.BytesIO()
    image.save(written, format=kind, **options)
    return written.getvalue()


def png_that_says(width, height):
    """A PNG of these dimensions without any pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b""), b"IEND"]
    body = b"".join(struct.pack(">I", len(it) - 4) + it + struct.pack(">I", zlib.crc32(it)) for it in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def scanned(scans):
    """A progressive JPEG whose last scan is repeated until it has so many."""
    whole = encoded(Image.effect_noise((64, 64), 50), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * (scans - whole.count(b"\xff\xda")) + whole[-2:]


def opened(data):
    return Image.open(io.BytesIO(base64.b64decode(data.partition("base64,")[2] or data)))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_is_answered_in_its_own_pixels(kind):
    answer = client().post("/predict", content=encoded(Image.new("RGB", (40, 20), "red"), kind))
    assert answer.status_code == 200 and "access-control-allow-origin" not in answer.headers
    found = answer.json()
    assert (found["width"], found["height"]) == (40, 20) and found["seconds"] >= 0
    assert found["entries"]["detection"] == [
        {"category_id": 2, "category": "dog", "bbox": [0, 0, 20, 20], "score": 0.7},
        {"category_id": 1, "category": "cat", "bbox": [0, 0, 40, 20], "score": 0.2},
    ]
    assert list(found["files"]) == ["segmentation.png"] and "drawing" not in found
    mask = opened(found["files"]["segmentation.png"])
    assert mask.mode == "P" and np.array(mask)[0].tolist() == [2] * 20 + [0] * 20


def test_a_drawing_has_the_wanted_tasks_from_a_score_on():
    content, drawings = encoded(Image.new("RGB", (400, 400), "white")), {}
    for asked in ("draw=0.1", "draw=0.5", "draw=0.5&tasks=detection", "draw=0.8&tasks=detection", "draw=0.5&tasks="):
        found = client().post(f"/predict?{asked}", content=content).json()
        assert "files" not in found and len(found["entries"]["detection"]) == 2
        drawings[asked] = np.asarray(opened(found["drawing"]), dtype=int)
    assert all(drawing.shape == (400, 400, 3) for drawing in drawings.values())
    filled, framed, empty = (drawings[f"draw=0.5{rest}"] for rest in ("", "&tasks=detection", "&tasks="))
    assert filled[300, 100, 1] < 200 < framed[300, 100, 1], "the mask"
    assert framed[300, 198, 1] < 120 < empty[300, 198, 1], "the dog's frame"
    assert drawings["draw=0.1"][300, 398, 1] < 120 < filled[300, 398, 1], "the cat's frame"
    assert (drawings["draw=0.8&tasks=detection"] > 250).all() and (empty > 250).all()
    wrong = {"draw=much": "draw=much is no score", "tasks=depth": "no task 'depth'; possible: detection,"}
    for asked, told in wrong.items():
        answer = client().post(f"/predict?{asked}", content=content)
        assert answer.status_code == 400 and told in answer.json()["error"]


def test_a_drawing_begins_where_something_is_seen():
    """At its tasks' own scores; where nothing reaches them, at the best one, which is told."""

    def unsure(image, size):
        return half(image, size).without("segmentation") if size[1] == 40 else faint(image, size)

    def faint(image, size):
        found = half(image, size).tasks["detection"]
        weak = Detections(boxes_xyxy=found.boxes_xyxy, classes=found.classes, scores=found.scores / 2)
        return result(image, size, PETS, weak)

    ask = partial(client(unsure).post, "/predict?draw=auto")
    sure, weak = (ask(content=encoded(Image.new("RGB", (width, 20)))).json() for width in (40, 50))
    assert (sure["score"], sure["found"]) == (0.5, "detection: 1 x dog")
    assert (weak["score"], weak["found"]) == (0.35, "detection: 1 x dog")
    plain = client(faint).post("/predict", content=encoded(Image.new("RGB", (40, 20)))).json()
    assert plain["found"] == "detection: nothing from score 0.50 on, the best has 0.35" and "score" not in plain


def test_a_large_lying_photograph_is_drawn_small_and_upright():
    seen = []

    def note(image, size):
        seen.append((image.size, image.getpixel((5, 5))))
        return half(image, size)

    exif = turned(6)  # turn by 90 degrees clockwise
    image = Image.new("RGB", (3200, 2000))
    image.paste("white", (0, 1000, 1600, 2000))  # lower left, which turns to upper left
    content = encoded(image, "JPEG", exif=exif)
    found = client(note).post("/predict", content=content).json()
    assert (found["width"], found["height"]) == (2000, 3200)
    assert found["entries"]["detection"][0]["bbox"] == [0, 0, 1000, 3200]
    assert opened(found["files"]["segmentation.png"]).size == (2000, 3200)
    found = client(note).post("/predict?draw=0.5", content=content).json()
    assert (found["width"], found["height"]) == opened(found["drawing"]).size == (1000, 1600)
    assert seen == [((1000, 1600), (255, 255, 255))] * 2, "a JPEG is decoded no larger than the answer needs"


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        (b"text", 415, NO_PICTURE),
        (encoded(Image.new("P", (4, 4)), "GIF"), 415, NO_PICTURE),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:700], 422, "the picture is broken; send another copy"),
        (png_that_says(8000, 7000), 413, TOO_LARGE),
        (png_that_says(30000, 30000), 413, TOO_LARGE),
        (png_that_says(1, 1_000_001), 413, TOO_LARGE),
        (scanned(101), 422, "the picture is broken; send another copy"),
        (bytes(1_000_001), 413, "the file is larger than 1 MB; make the picture smaller"),
        (b"", 415, NO_PICTURE),
    ],
)
def test_other_files_are_refused(content, status, told):
    answer = client(megabytes=1).post("/predict", content=content)
    assert (answer.status_code, answer.json()) == (status, {"error": told})
    assert client().get("/predict").status_code == 405 and client().get("/none").json() == {"error": "Not Found"}


PICTURES = [encoded(Image.new("RGB", (9, 4))), encoded(Image.new("L", (4, 9)), "JPEG"), scanned(101), b"", b"text"]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@given(asked=st.data())
@hypothesis_settings(max_examples=60, deadline=None)
def test_every_answer_is_as_described(asked):
    """What `openapi.yaml` describes, and beyond: no answer but 2xx and 4xx, and each of these says why in JSON."""
    described = DESCRIBED.get("/openapi.json").json()
    path = asked.draw(st.sampled_from([*described["paths"], "/health/", "/predict/x", "/%00"]))
    known = described["paths"].get(path, {})
    method = asked.draw(st.sampled_from([*METHODS, *(name.upper() for name in known)]))
    query = {
        each["name"]: asked.draw(st.one_of(VALUES[each["schema"].get("type", "score")], st.text(max_size=9)))
        for each in known.get(method.lower(), {}).get("parameters", [{"name": "x", "schema": {"type": "string"}}])
        if asked.draw(st.booleans())
    }
    headers = asked.draw(st.dictionaries(st.sampled_from(["origin", "sec-fetch-site", "content-type"]), HEADER))
    body = asked.draw(st.one_of(st.sampled_from(PICTURES), st.binary(max_size=99)))
    found = DESCRIBED.request(method, path, params=query, headers=headers, content=body)
    if found.is_success:
        content = known[method.lower()]["responses"][str(found.status_code)]["content"]
        ((kind, described_as),) = content.items()
        assert found.headers["content-type"].startswith(kind)
        assert kind != "application/json" or found.json().keys() >= {*described_as["schema"].get("required", ())}
        described = described_as["schema"].get("properties")
        assert described is None or found.json().keys() <= {*described}
    else:
        assert 400 <= found.status_code < 500
        (told,) = found.json().items()
        assert told[0] == "error" and isinstance(told[1], str) and told[1]


def asked(receive, answered):
    """Let the application answer one request whose body `receive` gives."""

    async def send(message):
        answered.append(message)

    headers = [(b"host", b"localhost"), (b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
    app = make_app(partial(answer, half, LEAST), CLASSES, megabytes=1)
    # In a thread of its own: a browser of another test may keep this one's event loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(anyio.run, app, scope, receive, send).result()


def test_a_body_without_end_is_read_up_to_the_limit():
    read, answered = 0, []

    async def receive():
        nonlocal read
        read += 1
        return {"type": "http.request", "body": bytes(100_000), "more_body": True}

    asked(receive, answered)
    assert answered[0]["status"] == 413 and read == 11


def test_the_network_sees_one_picture_at_a_time():
    meeting = threading.Barrier(2)

    def meet(*given):
        with pytest.raises(threading.BrokenBarrierError):
            meeting.wait(timeout=0.2)
        meeting.reset()
        return half(*given)

    with client(meet) as one, ThreadPoolExecutor(2) as threads:
        picture = encoded(Image.new("RGB", (4, 4)))
        answers = list(threads.map(lambda _: one.post("/predict", content=picture).status_code, range(2)))
    assert answers == [200, 200]


def test_a_failure_tells_nothing_of_the_inside(capsys):
    def fail(*_given):
        raise RuntimeError("out of memory in /home/me")

    answer = client(fail).post("/predict", content=encoded(Image.new("RGB", (4, 4))))
    assert answer.status_code == 500
    assert answer.json() == {"error": "the model failed on this picture; the terminal says more"}
    assert "RuntimeError: out of memory in /home/me" in capsys.readouterr().err


def test_foreign_pages_can_t_ask():
    one = client()
    for host, status in (("127.0.0.1:8000", 200), ("localhost", 200), ("[::1]:80", 200), ("evil.example:8000", 400)):
        assert one.get("/health", headers={"host": host}).status_code == status
        assert client(hosts=None).get("/health", headers={"host": host}).status_code == 200
    picture = encoded(Image.new("RGB", (4, 4)))
    for origin, status in ((LOCAL, 200), ("http://127.0.0.1:9000", 403), ("https://evil.example", 403), ("null", 403)):
        assert one.post("/predict", content=picture, headers={"origin": origin}).status_code == status
    told = {"error": "this server is not called 'evil.example'"}
    assert one.get("/health", headers={"host": "evil.example"}).json() == told
    for site, status in (("cross-site", 403), ("same-origin", 200), ("none", 200)):
        assert one.post("/predict", content=picture, headers={"sec-fetch-site": site}).status_code == status
    assert one.get("/health").json()["classes"] == {name: ["cat", "dog"] for name in PETS}
    page = one.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"""(src|href)=["']https?:""", page.text)


def test_more_than_a_few_need_not_wait(monkeypatch):
    monkeypatch.setattr("tutored.serve.app.WAITING", 1)
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(*given):
        begun.release()
        go_on.wait(20)
        return half(*given)

    with client(slow) as one, ThreadPoolExecutor(3) as threads:
        ask = partial(one.post, "/predict", content=encoded(Image.new("RGB", (4, 4))))
        asked = [threads.submit(ask) for _ in range(3)]
        begun.acquire()
        while not any(each.done() for each in asked):
            time.sleep(0.01)
        (refused,) = [each.result() for each in asked if each.done()]
        go_on.set()
        assert sorted(each.result().status_code for each in asked) == [200, 200, 503]
    assert refused.json() == {"error": "too many ask at once; send the picture again in a moment"}
    assert refused.headers["retry-after"] == "5"


def test_who_waits_or_sends_too_long_is_told(monkeypatch):
    def late(*_given):
        raise TimeoutError

    one = TestClient(make_app(late, CLASSES), base_url=LOCAL)
    refused = one.post("/predict", content=b"x")
    assert refused.status_code == 503 and "the model took too long" in refused.json()["error"]
    monkeypatch.setattr("tutored.serve.app.UPLOAD", 0.05)
    answered = []

    async def receive():
        await anyio.sleep(5)
        return {"type": "http.disconnect"}

    asked(receive, answered)
    assert answered[0]["status"] == 408 and b"took more than 0.05 seconds to arrive" in answered[1]["body"]


def spoken(url, *sent):
    """What a server says to bytes until it closes the connection."""
    port, said = int(url.rpartition(":")[2]), b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, suppress(ConnectionError):
        for piece in sent:
            connection.sendall(piece)
        while piece := connection.recv(4096):
            said += piece
    return said


def test_hostile_senders_keep_nobody_out_for_long(monkeypatch):
    """All at once, again and again: idle, half-open, slow, too large, from elsewhere, made to keep it busy, no HTTP."""
    monkeypatch.setattr("tutored.serve.app.HEADERS", 0.3)
    monkeypatch.setattr("tutored.serve.app.UPLOAD", 1)
    asking = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"

    def whole(body, more=b""):
        return (asking + more + b"Content-Length: %d\r\n\r\n" % len(body), body)

    picture = encoded(Image.new("RGB", (40, 20)))
    kinds = {
        "idle": (),
        "half-open": (asking,),
        "408": (asking + b"Content-Length: 9\r\n\r\n", b"x"),
        "413": whole(bytes(1_100_000)),
        "403": whole(picture, b"Origin: https://evil.example\r\n"),
        "422": whole(scanned(500)),
        "400": (b"\x16\x03\x01\x02\x00 no HTTP\r\n\r\n",),
    }
    with served(half, PETS, megabytes=1) as url, ThreadPoolExecutor(60) as threads:
        said = {kind: [] for kind in kinds}
        for kind in [*kinds] * 20:
            said[kind].append(threads.submit(spoken, url, *kinds[kind]))
        answered, started = 0, time.monotonic()
        while answered < 20:  # an honest sender, who comes again when told to
            answered += b" 200 OK" in spoken(url, *whole(picture, b"Connection: close\r\n")).partition(b"\r\n")[0]
            assert time.monotonic() - started < 20
        statuses = {
            kind: {each.result().partition(b"\r\n")[0].decode().partition(" ")[2][:3] for each in every}
            for kind, every in said.items()
        }
    alike = {kind: found - {"503"} for kind, found in statuses.items()}
    assert alike == {kind: {kind if kind.isdecimal() else ""} for kind in kinds}


def test_the_servers_own_errors_are_json(monkeypatch):
    monkeypatch.setattr("tutored.serve.app.CONNECTIONS", 0)
    with served(half, PETS) as url:
        busy = spoken(url, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"503" in busy.splitlines()[0]
        assert busy.endswith(b'{"error":"too many ask at once; send the picture again in a moment"}')
        wrong = spoken(url, b"no HTTP at all\r\n\r\n")
        assert b"400" in wrong.splitlines()[0] and wrong.endswith(b'{"error": "Invalid HTTP request received."}')


def test_an_answer_that_takes_too_long_is_ended():
    worker = Worker(make_sleeper, 0.5)
    try:
        assert worker.load() == "known" and worker(0) == 0
        with pytest.raises(TimeoutError):
            worker(60)
        assert worker(0.1) == 0.1, "another process has begun"
        with pytest.raises(ValueError, match="-1 seconds"):
            worker(-1)
        with pytest.raises(RuntimeError, match="the process that answers pictures ended; was there too little memory"):
            worker(99)
    finally:
        worker.end()


def test_an_open_address_is_warned_of(checkpoint, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(tutored.serve, "serve", lambda checkpoint, host, port, **rest: asked.append((host, port)))
    assert main(["serve", str(checkpoint)]) == 0 and capsys.readouterr().err == ""
    assert main(["serve", str(checkpoint), "--host", "0.0.0.0", "--port", "80"]) == 0
    assert capsys.readouterr().err.startswith("warning: 0.0.0.0 is not loopback")
    assert all(map(is_loopback, ("127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("::", "192.168.0.7")))
    assert asked == [("127.0.0.1", 8000), ("0.0.0.0", 80)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    config = make_config({"data": {"train": "voc:x"}, "student": SHAPE})
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("serve") / "checkpoint"
    save_checkpoint(path, make_student(config.student, PETS), config)
    return path


@contextmanager
def commanded(checkpoint):
    """`tutored serve` in a process: it, its address, and the processes that it began."""
    command = [sys.executable, "-m", "tutored", "serve", str(checkpoint), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            url = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+) \(Ctrl-C ends it\)\n", line)[1]
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")  # where there is such a folder
            yield process, url, list(map(int, children.read_text().split() if children.exists() else ()))
        finally:
            process.kill()


def all_ended(processes):
    until = time.monotonic() + 10
    while time.monotonic() < until and any(Path(f"/proc/{each}").exists() for each in processes):
        time.sleep(0.01)
    return not any(Path(f"/proc/{each}").exists() for each in processes)


def memory(processes):
    """Bytes that processes hold, without what they share in files."""
    pages = [int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in processes]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def test_the_command_answers_many_in_the_same_memory_and_ends(checkpoint):
    """500 requests, of which every other is a photograph; then SIGTERM during an answer that takes for ever."""
    from httpx import Client

    photograph = encoded(Image.effect_noise((400, 300), 50), "JPEG")
    with commanded(checkpoint) as (process, url, answering), Client(trust_env=False, base_url=url) as asking:
        found = asking.post("/predict", content=encoded(Image.new("RGB", (40, 20)))).json()
        assert (found["width"], found["height"]) == (40, 20)
        held = []
        for requests in (100, 400):
            for number in range(requests):
                path = "/predict?draw=0.5" if number % 20 == 0 else "/predict"
                assert asking.post(path, content=photograph if number % 2 else b"text").status_code in (200, 415)
            held.append(memory([process.pid, *answering]) if answering else 0)
        assert held[1] - held[0] < 20e6, "of its pixels alone, 200 pictures would be 72 MB"
        for each in answering:
            if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes():
                os.kill(each, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as threads:
            request = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
            waiting = threads.submit(spoken, url, request)
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            assert process.wait(timeout=60) == 0 and time.monotonic() - started < 25, "an answer may take 30"
            assert all_ended(answering) and b" 200 " not in waiting.result()


def test_what_keeps_it_from_listening_is_said(checkpoint, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(rf"127\.0\.0\.1 port {port}: can't listen there .*another --port", serve, checkpoint, port=port)
    refused("port 70000: can't listen there", serve, checkpoint, port=70000)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    refused(r"serving needs uvicorn; run `pip install 'tutored\[serve\]'`", serve, checkpoint)


@contextmanager
def served(predict, tasks, **options):
    """The page on a free port, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(settings(make_app(partial(answer, predict, LEAST), classes_of(tasks), **options)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def test_the_page_shows_a_picture_and_its_answer(browser):
    from playwright.sync_api import expect

    picture = {"name": "a.png", "mimeType": "image/png", "buffer": encoded(Image.new("RGB", (400, 200), "white"))}
    text = {"name": "b.png", "mimeType": "image/png", "buffer": b"text"}
    with served(half, PETS) as url:
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        faults = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(url)
        assert not page.is_visible("#result")
        page.set_input_files("#file", picture)
        page.wait_for_selector("#tables table")
        assert page.inner_text("#told").startswith("400 \u00d7 200 pixels")
        boxes = page.locator("#tables table").first
        assert boxes.inner_text().split() == "detection: 1 of 2 dog 0.70".split()
        assert page.evaluate("document.getElementById('drawing').naturalWidth") == 400
        before = page.get_attribute("#drawing", "src")

        page.fill("#score", "0.1")
        page.locator("#tables caption", has_text="2 of 2").wait_for()
        page.uncheck("[name=task][value=segmentation]")
        expect(page.locator("#drawing")).not_to_have_attribute("src", str(before))
        assert url in page.locator("pre").text_content()

        page.set_input_files("#file", text)
        page.wait_for_selector("#told.bad")
        assert page.inner_text("#told").startswith("Not answered: not a picture that can be read")
        assert not page.is_visible("#result") and faults == []
        page.close()


def test_a_dropped_picture_is_answered_on_a_phone(browser):
    content = base64.b64encode(encoded(Image.new("RGB", (40, 60), "white"))).decode()
    with served(half, PETS) as url:
        page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        page.goto(url)
        page.evaluate(
            """content => {
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                const dropped = new DataTransfer();
                dropped.items.add(new File([bytes], "a.png", { type: "image/png" }));
                document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true }));
            }""",
            content,
        )
        page.wait_for_selector("#tables table")
        assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing is too broad"
        page.close()


def test_a_shrunk_picture_looks_nearly_the_same_to_a_network():
    rng = np.random.default_rng(0)
    scene = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize((1600, 1200))
    content = encoded(scene, "JPEG", quality=90)
    small, whole = (read_upload(content, least) for least in (400, 1600))
    assert [each[1] for each in (small, whole)] == [(1200, 1600)] * 2
    assert (small[0].size, whole[0].size) == ((800, 600), (1600, 1200))
    seen = [preprocess([image], 200).numpy() * 255 for image, _ in (small, whole)]
    assert 0 < np.abs(seen[0] - seen[1]).max() < 6 and np.abs(seen[0] - seen[1]).mean() < 0.5
    exact = read_upload(content, 601)[0]
    assert np.array_equal(exact, Image.open(io.BytesIO(content))), "where it can't be shrunk, pixels are those stored"


def test_an_upload_that_breaks_off_is_no_failure():
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    asked(receive, [])
