"""BCCD: fetched from a server of this machine, or taken from a folder; here it has six images."""

from __future__ import annotations

import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dense_kd.checkpoint import SaveError
from dense_kd.cli import main
from dense_kd.data import DatasetError, bccd, bccd_install, install_bccd, read_dataset
from dense_kd.engine import RunError, check_run
from dense_kd.engine.checks.overrides import apply_overrides
from helpers.configs import fresh
from helpers.small_bccd import NAMES, PARTS, annotation, write


def archive(files: dict[str, bytes]) -> bytes:
    """As the repository's site makes them, with what else is in the repository."""
    content = io.BytesIO()
    others = {"LICENSE": b"MIT", "README.md": b"", "BCCD/Annotations/../../../evil.xml": b"<a/>"}
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in {**{f"BCCD/{k}": v for k, v in files.items()}, **others}.items():
            member = tarfile.TarInfo(f"BCCD_Dataset-d272fb1/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("BCCD_Dataset-d272fb1/BCCD/Annotations/link.xml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return content.getvalue()


@pytest.fixture
def serve(monkeypatch):
    """Serves an archive in the place of the repository's."""
    servers = []

    def start(content: bytes | None) -> list[str]:
        requests: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/BCCD.tar.gz"
        monkeypatch.setattr(bccd_install, "ARCHIVE", url)
        return requests

    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1")
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_it_is_fetched_once_and_registered_for_the_configs(serve, files, target, capsys):
    requests = serve(archive(files))
    for _ in range(2):
        assert main(["data", "bccd"]) == 0
        assert capsys.readouterr().out == f"bccd_train, bccd_val, bccd_test: {target}\n"
    assert requests == ["/BCCD.tar.gz"]
    found = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert found == {*files, "LICENSE", *(f".coco/{split}.json" for split in bccd.SPLITS)}
    assert [path.name for path in target.parent.iterdir()] == ["bccd"]
    images = DatasetCatalog.get("bccd_train")
    assert [Path(image["file_name"]).stem for image in images] == PARTS["train"]
    assert sum(len(image["annotations"]) for image in images) == 9
    assert MetadataCatalog.get("bccd_train").thing_classes == ["Platelets", "RBC", "WBC"]
    assert read_dataset(target).layout == "voc"  # it is a dataset of one's own, too


@pytest.mark.parametrize("inside", [False, True])
def test_a_copy_of_the_folder_or_of_the_repository_is_taken(inside, files, target, tmp_path):
    # As copies go, without the folders of those who drew the boxes.
    copied = {name: data.replace(b"/home/me/", b"") for name, data in files.items()}
    folder = write(copied, tmp_path / "copy" / ("BCCD" if inside else ""))
    assert install_bccd(tmp_path / "copy" if inside else folder) == target
    assert all((target / name).read_bytes() == data for name, data in copied.items())


def test_what_is_there_is_checked_and_only_what_is_missing_is_made(files, target):
    write(files, target)
    times = {path: path.stat().st_mtime_ns for path in target.rglob("*.jpg")}
    install_bccd()  # from nowhere
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*.jpg")} == times
    assert (target / ".coco" / "val.json").is_file()


CHANGES = {
    "an image is missing": lambda files: files.pop(f"JPEGImages/{NAMES[2]}.jpg"),
    "a box was moved": lambda files: files.update(
        {f"Annotations/{NAMES[1]}.xml": annotation(NAMES[1]).replace("30", "31").encode()}
    ),
    "images went to another part": lambda files: files.update(
        {"ImageSets/Main/val.txt": NAMES[4].encode() + b"\n"}
    ),
    "there is one more": lambda files: files.update({"Annotations/more.xml": b"<annotation/>"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_bccd_is_refused_and_nothing_is_left(change, serve, files, target, tmp_path):
    changed = dict(files)
    CHANGES[change](changed)
    with pytest.raises(DatasetError, match="is not BCCD: expected 732 files .* give the folder"):
        install_bccd(write(changed, tmp_path / "copy"))
    serve(archive(changed))
    with pytest.raises(DatasetError, match=r"what came from http://.* is not BCCD: .*; try again"):
        install_bccd()
    assert not target.parent.exists()
    write(changed, target)
    with pytest.raises(DatasetError, match="is there already and is not BCCD.*move it away"):
        install_bccd()


@pytest.mark.parametrize("what", ["half of it", "no archive", "no such file"])
def test_a_download_that_fails_says_what_to_do_and_leaves_nothing(
    what, serve, files, target, capsys
):
    whole = archive(files)
    serve(
        {"half of it": whole[: len(whole) // 2], "no archive": b"<html>", "no such file": None}[
            what
        ]
    )
    assert main(["data", "bccd"]) == 1
    said = capsys.readouterr().err
    if what == "no such file":
        assert "could not be fetched from http://127.0.0.1" in said and "HTTP Error 404" in said
        assert "give it as `dense-kd data bccd --from BCCD`" in said
    else:
        assert "is damaged" in said and "try again" in said
    assert not target.parent.exists()


def test_a_place_that_cannot_be_written_to_is_said_before_anything_is_fetched(
    serve, files, tmp_path
):
    requests = serve(archive(files))
    (tmp_path / "afile").touch()
    with pytest.raises(SaveError, match="afile is a file, expected a folder"):
        install_bccd(root=tmp_path / "afile" / "bccd")
    assert requests == []


def test_a_folder_that_does_not_exist_is_named(target, tmp_path):
    with pytest.raises(DatasetError, match="nowhere does not exist or is no folder; expected"):
        install_bccd(tmp_path / "nowhere")


def test_its_true_files_are_known_by_a_digest_of_what_does_not_differ_between_copies(files):
    other = {name: data.replace(b"/home/me/", b"D:\\cells\\") for name, data in files.items()}
    assert bccd_install.digest_of(other) == bccd_install.digest_of(files)
    assert bccd_install.digest_of({**files, "README.md": b""}) == bccd_install.digest_of(files)
    assert len(bccd_install.DIGEST) == 64 and sum(bccd.SPLITS.values()) == 364


def test_a_run_without_it_says_how_it_is_fetched():
    cfg = apply_overrides(fresh("bccd/gfl_r18.py"), ["train.output_dir=output/nothing"])
    with pytest.raises(
        RunError, match="bccd_train: .* does not exist. `dense-kd data bccd` fetches"
    ):
        check_run(cfg, "train")


def test_shapes_are_drawn_where_their_configs_look(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setattr("dense_kd.data.shapes.DEFAULT_SIZES", {"train": 2, "val": 1})
    assert main(["data", "shapes"]) == 0
    assert sorted(path.name for path in (tmp_path / "shapes" / "train").iterdir()) == [
        "000000.png",
        "000001.png",
    ]
    assert "shapes_val: " in capsys.readouterr().out
    assert main(["data", "shapes", "--from", "x"]) == 1
    assert "--from x: expected nothing" in capsys.readouterr().err
