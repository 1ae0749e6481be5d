"""Names for public weights, on a server of this machine."""

from __future__ import annotations

import hashlib
import importlib
import multiprocessing
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from torchvision.models.resnet import BasicBlock

from dense_kd import Teacher
from dense_kd.checkpoint import (
    AtomicCheckpointer,
    CheckpointError,
    ZooHandler,
    conversion,
    convert_file,
    published_file,
    read_weights,
    zoo,
)
from helpers.builders import GOLDEN, fill_randomly, tiny_fcos
from helpers.mmdet_models import detector


class Server:
    """Serves ``files`` at ``url``, and counts what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.announced: dict[str, int] = {}  # a length that is not the file's
        self.seconds = 0.0  # for the second half of a file
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                content = server.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                length = server.announced.get(self.path, len(content))
                self.send_header("Content-Length", str(length))
                self.end_headers()
                half = len(content) // 2
                self.wfile.write(content[:half])
                self.wfile.flush()
                time.sleep(server.seconds)
                self.wfile.write(content[half:])

            def log_message(self, *args) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def add(self, content: bytes, digits: str | None = None) -> str:
        """Serve ``content`` under a name with its digits, or with ``digits``; the URL."""
        digits = digits or hashlib.sha256(content).hexdigest()[:8]
        path = f"/models/weights-{digits}.pth"
        self.files[path] = content
        return self.url + path


@pytest.fixture
def server(tmp_path, monkeypatch) -> Server:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def fetch(url: str) -> bytes:
    """What ``test://weights`` gives when it stands for ``url``."""
    PathManager.register_handler(ZooHandler("test://", {"weights": url}))
    return Path(PathManager.get_local_path("test://weights")).read_bytes()


def test_a_file_is_downloaded_once_and_checked(server, tmp_path):
    url = server.add(b"weights")
    assert fetch(url) == b"weights"
    with PathManager.open("test://weights", "rb") as file:
        assert file.read() == b"weights"
    assert len(server.requests) == 1
    [cached] = [path for path in (tmp_path / "cache").rglob("*.pth")]
    cached.write_bytes(b"weighty")  # on the disk, later
    with pytest.raises(CheckpointError, match="is not the file that was published"):
        fetch(url)


def test_a_file_with_other_digits_is_refused_and_kept(server):
    url = server.add(b"other weights", digits="0123abcd")
    found = hashlib.sha256(b"other weights").hexdigest()[:8]
    for _ in range(2):
        with pytest.raises(CheckpointError) as error:
            fetch(url)
        for part in ["weights-0123abcd.pth", url, "with 0123abcd", f"with {found}", "Delete it"]:
            assert part in str(error.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("what", ["half a file", "no such file", "no server"])
def test_a_download_that_fails_says_so_and_leaves_nothing(server, tmp_path, what):
    url = server.add(b"weights")
    path = url[len(server.url) :]
    if what == "half a file":
        server.announced[path] = 14
    elif what == "no such file":
        del server.files[path]
    else:
        server.http.shutdown()
        server.http.server_close()
    with pytest.raises(CheckpointError, match=f"test://weights could not be downloaded from {url}"):
        fetch(url)
    assert [p.name for p in (tmp_path / "cache").rglob("weights*") if p.suffix != ".lock"] == []


def ask(url: str, both_are_ready: Barrier, answers: Queue) -> None:
    both_are_ready.wait(60)
    answers.put(hashlib.sha256(fetch(url)).hexdigest())


def test_two_processes_that_ask_at_once_get_a_whole_file_from_one_download(server):
    content = os.urandom(1 << 16)
    url = server.add(content)
    server.seconds = 0.5
    fork = multiprocessing.get_context("fork")
    both_are_ready, answers = fork.Barrier(2), fork.Queue()
    processes = [fork.Process(target=ask, args=(url, both_are_ready, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=60) for _ in range(2)] == [hashlib.sha256(content).hexdigest()] * 2
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(server.requests) == 1


def test_an_unknown_name_is_answered_with_those_like_it():
    with pytest.raises(CheckpointError) as error:
        read_weights("mmdet://retinanet_r101_fpn_2x")
    message = str(error.value)
    assert "no weights 'mmdet://retinanet_r101_fpn_2x'; did you mean retinanet_r101_fpn" in message
    assert all(name in message for name in zoo.MMDET_URLS)
    with pytest.raises(CheckpointError, match="Known after torchvision:// are retinanet_resnet50"):
        PathManager.get_local_path("torchvision://vgg")


DIGITS = (
    "c2398f9e fdb43119 7a93545f 5560aee8 5c8b7ec4 366f5af1 022c2187 821213aa d92ceeea 0a0d75a8 "
    "0e37b982 511424d6 985f7bd0 dfcadd6f 25944287 37bb1edc dd12f847 29b2fc67 5e17991f"
).split()
"""Of the files that CrossKD, LD, BCKD, PKD, MGD and FGD name, or that a table of AP is of."""


def test_the_names_of_mmdetection_stand_for_the_files_with_these_digits():
    found = [re.search(r"-([0-9a-f]{8})\.pth$", url)[1] for url in zoo.MMDET_URLS.values()]
    assert found == DIGITS
    for name, url in zoo.MMDET_URLS.items():
        assert url.startswith("https://download.openmmlab.com/mmdetection/v2.0/")
        assert url.split("/")[-2] == name


def test_the_names_of_torchvision_are_its_models_and_by_default_their_first_weights():
    urls = zoo.TORCHVISION_URLS
    weights = torchvision.models.ResNet50_Weights
    assert urls["resnet50"] == urls["resnet50@IMAGENET1K_V1"] == weights.IMAGENET1K_V1.url
    assert urls["resnet50@IMAGENET1K_V2"] == weights.IMAGENET1K_V2.url
    detectors = torchvision.models.detection
    assert urls["fcos_resnet50_fpn"] == detectors.FCOS_ResNet50_FPN_Weights.COCO_V1.url
    assert all(re.search(r"-[0-9a-f]{8}\.pth$", url) for url in urls.values())


def test_a_teacher_is_named(server, monkeypatch):
    content = (GOLDEN / "det_fcos.pth").read_bytes()
    monkeypatch.setitem(zoo.MMDET_URLS, "fcos", server.add(content))
    teacher = Teacher(detector("det_fcos"), "mmdet://fcos")
    teacher.load()
    expected = read_weights(str(GOLDEN / "det_fcos.pth"))
    assert torch.equal(teacher.model.head.cls_score.weight, expected["head.cls_score.weight"])


def test_a_students_start_is_named(server, monkeypatch, tmp_path):
    model = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1])
    fill_randomly(model)
    torch.save(model.state_dict(), tmp_path / "resnet.pth")
    url = server.add((tmp_path / "resnet.pth").read_bytes())
    monkeypatch.setitem(zoo.TORCHVISION_URLS, "resnet10@IMAGENET1K_V1", url)
    student = tiny_fcos(width=64)
    checkpointer = AtomicCheckpointer(student, str(tmp_path))
    checkpointer.load("torchvision://resnet10@IMAGENET1K_V1")
    assert torch.equal(student.backbone.bottom_up.stem.conv1.weight, model.conv1.weight)


def test_detectron2s_own_checkpointer_reads_a_name_too(server, monkeypatch, tmp_path):
    content = (GOLDEN / "det_fcos.pth").read_bytes()
    monkeypatch.setitem(zoo.MMDET_URLS, "fcos", server.add(content))
    student = detector("det_fcos")
    incompatible = DetectionCheckpointer(student, str(tmp_path)).load("mmdet://fcos")
    assert incompatible == {}
    for key, value in read_weights(str(GOLDEN / "det_fcos.pth")).items():
        assert torch.equal(student.state_dict()[key], value), key


def test_a_named_file_can_be_converted_by_hand(server, monkeypatch, tmp_path):
    content = (GOLDEN / "det_fcos.pth").read_bytes()
    monkeypatch.setitem(zoo.MMDET_URLS, "fcos", server.add(content))
    published = published_file("mmdet://fcos")
    assert Path(published).read_bytes() == content
    assert convert_file(published, str(tmp_path / "out.pth")).model == "FCOS"
    assert published_file("output/model.pth") == "output/model.pth"


def test_what_a_name_resolves_to_is_converted_once_for_each_converter(server, monkeypatch):
    content = (GOLDEN / "det_fcos.pth").read_bytes()
    monkeypatch.setitem(zoo.MMDET_URLS, "fcos", server.add(content))
    first = Path(PathManager.get_local_path("mmdet://fcos"))
    written = first.stat().st_mtime_ns
    assert PathManager.get_local_path("mmdet://fcos") == str(first)
    assert first.stat().st_mtime_ns == written
    monkeypatch.setattr(conversion, "CONVERTER", "another")
    other = Path(PathManager.get_local_path("mmdet://fcos"))
    assert other != first and other.parent == first.parent
    assert len(server.requests) == 1


def test_a_students_start_with_an_unknown_name_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="did you mean resnet18"):
        AtomicCheckpointer(tiny_fcos(), str(tmp_path)).load("torchvision://resnet-18")


def test_registering_again_is_no_error():
    importlib.reload(zoo)
