"""The hub, against a server on this machine that answers as the Hugging Face hub does."""

import base64
import hashlib
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import genstack
from genstack import hub
from genstack.checkpoints import model_file
from genstack.cli.main import main
from genstack.compressor import Autoencoder, Gaussian, Strided
from genstack.compressor.quantizers import FSQ
from genstack.conditions import ClassLabels
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.model import Model
from genstack.prior import Autoregressive, SamplingOptions
from genstack.prior.flow_matching import FlowMatching
from genstack.transformer import Backbone

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The requests of a client that fetches a snapshot, and of one that sends a folder."""

    repositories: dict[str, dict[str, bytes]] = {}
    asked: list[str] = []

    def log_message(self, *_):
        """Silence."""

    def answer(self, content, status=200, kind="application/json", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def file(self):
        name, _, path = self.path.lstrip("/").partition("/resolve/")
        path = path.partition("/")[2]
        content = self.repositories.get(name, {}).get(path)
        if content is None:
            self.answer({"error": "not found"}, 404, X_Error_Code="EntryNotFound")
            return
        tag = hashlib.sha256(content).hexdigest()
        self.answer(content, kind="application/octet-stream", ETag=f'"{tag}"', X_Repo_Commit=COMMIT)

    def do_HEAD(self):
        self.file()

    def do_GET(self):
        self.asked.append(self.path)
        if "/resolve/" in self.path:
            self.file()
            return
        parts = self.path.partition("?")[0].split("/")
        name = "/".join(parts[3:5])
        if name not in self.repositories:
            self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        elif "tree" in parts:
            content = self.repositories[name]
            self.answer(
                [
                    {"type": "file", "path": path, "size": len(body), "oid": COMMIT}
                    for path, body in content.items()
                ]
            )
        else:
            siblings = [{"rfilename": path} for path in self.repositories[name]]
            self.answer({"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})

    def do_POST(self):
        self.asked.append(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        address = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            made = json.loads(body)
            name = f"{made.get('organization') or 'ann'}/{made['name']}"
            self.repositories.setdefault(name, {})
            self.answer({"url": f"{address}/{name}"})
            return
        name = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            self.answer(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
                    ]
                }
            )
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    self.repositories[name][value["path"]] = base64.b64decode(value["content"])
            self.answer({"commitUrl": f"{address}/{name}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.answer({"valid": True})


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The server's repositories and requests; the client keeps its files in a folder of the test."""
    Hub.repositories, Hub.asked = {}, []
    running = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("HF_TOKEN", "of a test")
    yield Hub
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def model():
    built = Autoencoder(3, Strided(8, 4, 1, 4), FSQ()).eval().requires_grad_(False)
    return Model(built, Preprocessing(3, 16, 24))


@pytest.mark.filterwarnings("default")  # of the client's own
def test_model_round_trips_through_the_hub(tmp_path, server, model, capsys):
    model_file.save(model, tmp_path / "run")
    words = ["--to", "safetensors", "--out", str(tmp_path / "out"), "--push", "hf:ann/flowers"]
    assert not main(["export", str(tmp_path / "run"), *words])
    assert "hf:ann/flowers" in capsys.readouterr().out
    sent = server.repositories["ann/flowers"]
    assert set(sent) == {"README.md", "model.json", "model.safetensors"}
    assert b'genstack.load("hf:ann/flowers")' in sent["README.md"]
    sent["code.py"] = b"raise SystemExit"
    found = genstack.load("hf:ann/flowers")
    images = torch.rand(1, 3, 16, 24) * 2 - 1
    assert torch.equal(found.compressor.encode(images), model.compressor.encode(images))
    assert model_file.identity(model_file.load(Path("hf:ann/flowers@main"))) == model_file.identity(model)
    fetched = {path.rpartition("/")[2] for path in server.asked if "/resolve/" in path}
    assert fetched == {"model.json", "model.safetensors"}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_prior_over_latents_round_trips_through_the_hub(tmp_path, server):
    built = Autoencoder(3, Strided(8, 4, 1, 4), Gaussian(4)).eval()
    prior = FlowMatching(
        built.layout(16, 24), ClassLabels(("a", "b")), Backbone(16, 1, 2, adaln="own")
    ).eval()
    prior.standardization.set(0.5, 2.0)
    model = Model(
        built.requires_grad_(False), Preprocessing(3, 16, 24), ("a", "b"), prior.requires_grad_(False)
    )
    model_file.save(model, tmp_path / "run")
    words = ["--to", "safetensors", "--out", str(tmp_path / "out"), "--push", "hf:ann/flow"]
    assert not main(["export", str(tmp_path / "run"), *words])
    found, options = genstack.load("hf:ann/flow"), SamplingOptions(steps=2)
    one, other = (each.sample(each.inputs(2), options, 0, range(2)) for each in (model, found))
    assert torch.equal(one, other)


@pytest.fixture
def drawing(model):
    """A prior over the codes of that compressor."""
    backbone = Backbone(width=16, depth=1, heads=2)
    prior = Autoregressive(model.layout, ClassLabels(("a", "b", "c")), backbone).eval()
    return replace(model, classes=("a", "b", "c"), prior=prior.requires_grad_(False))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_commands_accept_hub_names(tmp_path, server, drawing, monkeypatch, capsys):
    """Files made from a model on the hub equal those made from its run, and lie in the current folder."""
    monkeypatch.chdir(tmp_path)
    model_file.save(drawing, Path("run"))
    assert not main(["export", "run", "--to", "safetensors", "--out", "out", "--push", "hf:ann/flowers"])
    for place in ("run", "hf:ann/flowers"):
        out = Path(place.rpartition("/")[2])
        words = ["--count", "3", "--classes", "b", "--out", str(out / "samples"), "--device", "cpu"]
        assert not main(["sample", place, *words])
        data = ["--data.source", "shapes:12", "--data.validation", "0.5"]
        assert not main(["encode", place, "--out", str(out / "codes"), *data])
    assert not main(["evaluate", "hf:ann/flowers", *data, "--data.labels", "none", "--samples", "16"])
    here, there = (sorted(folder.rglob("*.png")) for folder in (Path("run/samples"), Path("flowers/samples")))
    assert len(here) == 3 and [path.read_bytes() for path in here] == [path.read_bytes() for path in there]
    assert Path("flowers.evaluation/card.json").is_file()


@pytest.mark.filterwarnings("default")
def test_missing_repository_gives_one_line(server):
    with pytest.raises(UserError, match=r"^hf:ann/nothing cannot be reached or does not exist: .*") as error:
        genstack.load("hf:ann/nothing")
    assert "\n" not in str(error.value)
    server.repositories["ann/empty"] = {"README.md": b"# Nothing"}
    with pytest.raises(UserError, match=r"^hf:ann/empty holds no weights that genstack reads"):
        genstack.load("hf:ann/empty")


GOLDEN = Path(__file__).parent / "golden" / "diffusers_vqmodel"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["hf:ann/pipe", "hf:ann/pipe/vqvae", "hf:ann/pipe/vqvae@main"])
def test_a_folder_of_a_repository_is_a_model(server, name):
    files = {path.name: path.read_bytes() for path in GOLDEN.iterdir()}
    server.repositories["ann/pipe"] = {
        "model_index.json": b"{}",
        "unet/diffusion_pytorch_model.safetensors": b"large",
        "vqvae/diffusion_pytorch_model.fp16.safetensors": b"not wanted",
        **{f"vqvae/{file}": content for file, content in files.items()},
    }
    assert genstack.load(name).metadata["published"] == "VQModel of diffusers"
    fetched = {path.rpartition("/")[2] for path in server.asked if "/resolve/" in path}
    assert fetched == set(files)


@pytest.mark.filterwarnings("default")
def test_a_file_of_a_repository_is_a_model(server, monkeypatch):
    """Also the cached one, where the server is out of reach."""
    content = (GOLDEN.parent / "maskbit_tokenizer.bin").read_bytes()
    server.repositories["ann/bits"] = {"weights/maskbit_tokenizer_6bit.bin": content, "other.bin": b"large"}
    name = "hf:ann/bits/weights/maskbit_tokenizer_6bit.bin"
    assert genstack.load(name).metadata["published"] == "tokenizer of MaskBit"
    fetched = {path.rpartition("/")[2] for path in server.asked if "/resolve/" in path}
    assert fetched == {"maskbit_tokenizer_6bit.bin"}
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert genstack.load(name).metadata["file"] == "maskbit_tokenizer_6bit.bin"


@pytest.mark.parametrize(
    "name", ["hf:ann", "hf:ann/flowers//more", "hf:ann/flowers/../x", "hf:../..@x y", "hf:ann/flowers@"]
)
def test_invalid_names_are_rejected_without_requests(name):
    with pytest.raises(UserError, match="expected hf:user/name"):
        hub.fetch(name)
