"""Files from a web server on this machine: once, whole, resumed, and never of two versions."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from genstack.data import ImageData
from genstack.data.cache import Quota, cache
from genstack.data.images import Preprocessing
from genstack.data.remote import Remote, fetch
from genstack.data.sources import open_source
from genstack.errors import UserError


class Server(ThreadingHTTPServer):
    """Serves one file; `breaks` bytes after the start of an answer the connection ends."""

    def __init__(self, content):
        self.content, self.tag, self.breaks, self.ranges, self.asked = content, '"1"', None, True, []
        self.hides_length = self.wrong_part = False
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, name="a.tar"):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        of, wanted = self.server, self.headers.get("Range")
        of.asked.append(wanted)
        if self.path.startswith("/none"):
            return self.send_error(404)
        goes_on = wanted and of.ranges and self.headers.get("If-Range", of.tag) == of.tag
        bounds = wanted.removeprefix("bytes=").split("-") if goes_on else ("0", "")
        first, last = int(bounds[0]), int(bounds[1] or len(of.content) - 1)
        if goes_on and first >= len(of.content):
            return self.send_error(416)
        self.send_response(206 if goes_on else 200)
        if goes_on:
            shown = 1 if of.wrong_part else first
            self.send_header("Content-Range", f"bytes {shown}-{last}/{len(of.content)}")
        if not of.hides_length:
            self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("ETag", of.tag)
        self.end_headers()
        self.wfile.write(of.content[first : last + 1][: of.breaks])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    serving = Server(bytes(range(256)) * 5000)
    yield serving
    serving.shutdown()
    serving.server_close()


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_fetched_once(server, tmp_path):
    place = fetch(server.url(), tmp_path)
    assert place.read_bytes() == server.content and names(tmp_path) == [place.name]
    assert fetch(server.url(), tmp_path) == place and len(server.asked) == 1
    assert fetch(server.url("b/a.tar"), tmp_path) != place


def test_interrupted_download_resumes(server, tmp_path):
    server.breaks = 300_000
    for _ in range(2):
        with pytest.raises(UserError, match=r"ended after .* of 1280000 bytes.*resume"):
            fetch(server.url(), tmp_path)
    server.breaks = None
    assert fetch(server.url(), tmp_path).read_bytes() == server.content
    assert server.asked == [None, "bytes=300000-", "bytes=600000-"]


@pytest.mark.parametrize("changed", ["another version", "no ranges", "the part is longer"])
def test_partial_download_of_another_version_is_discarded(server, tmp_path, changed):
    server.breaks = 300_000
    with pytest.raises(UserError):
        fetch(server.url(), tmp_path)
    server.breaks = None
    if changed == "another version":
        server.tag, server.content = '"2"', b"other" * 90_000
    elif changed == "no ranges":
        server.ranges = False
    else:
        server.content = server.content[:1000]
    assert fetch(server.url(), tmp_path).read_bytes() == server.content


def test_wrong_range_is_rejected(server, tmp_path):
    server.breaks = 300_000
    with pytest.raises(UserError):
        fetch(server.url(), tmp_path)
    server.wrong_part, server.breaks = True, None
    with pytest.raises(UserError, match="another range"):
        fetch(server.url(), tmp_path)


def test_response_without_length_is_rejected(server, tmp_path):
    server.hides_length = True
    with pytest.raises(UserError, match="does not send the length"):
        fetch(server.url(), tmp_path)
    assert names(tmp_path) == []


def test_full_disk_is_reported_before_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr("genstack.data.remote.SPARE", 2**62)
    with pytest.raises(UserError, match="GENSTACK_DATA"):
        fetch(server.url(), tmp_path)
    assert names(tmp_path) == []


def test_missing_files_and_servers_give_one_line(server, tmp_path):
    for url, message in ((server.url("none.tar"), "Not Found"), ("http://127.0.0.1:9/a.tar", "fetched")):
        with pytest.raises(UserError, match=message) as error:
            fetch(url, tmp_path)
        assert "\n" not in str(error.value)


def test_threads_download_once(server, tmp_path):
    places = []
    threads = [
        threading.Thread(target=lambda: places.append(fetch(server.url(), tmp_path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(places)) == 1 and len(server.asked) == 1


def test_shards_on_a_server(server, example):
    pattern = example("WebDatasetSource")
    server.content = Path(pattern.replace("{0..1}", "0")).read_bytes()
    source, local = open_source(server.url("{0..1}.tar")), open_source(pattern)
    assert len(source) == 6 and len(server.asked) == 2
    assert [source.key(number) for number in range(3)] == [local.key(number) for number in range(3)]
    assert len(open_source(server.url("{0..1}.tar"))) == 6 and len(server.asked) == 2


@pytest.fixture
def remote(server, example, monkeypatch):
    """The pattern of two shards on a server of which the disk takes one, and the same shard here."""
    pattern = example("WebDatasetSource")
    server.content = Path(pattern.replace("{0..1}", "0")).read_bytes()
    monkeypatch.setenv("GENSTACK_DATA_GB", str(1.5 * len(server.content) / 1e9))
    return server.url("{0..1}.tar"), pattern


def kept():
    folder = cache() / "fetched"
    return [path for path in folder.rglob("*.tar") if path.is_file()]


def test_shards_over_the_limit_stay_on_the_server(server, remote):
    """Both are indexed, in any order of fetching; one is kept; all images are read alike, one by one."""
    url, pattern = remote
    source, local = open_source(url), open_source(pattern)
    assert len(kept()) == 1
    assert len(source) == 6
    size = Preprocessing(3, 16, 16)
    for number in range(3):
        for image in (number, number + 3):
            assert torch.equal(source.image(image, size), local.image(number, size))
            assert source.label(image) == local.label(number)
            assert source.caption(image) == local.caption(number)
    asked = len(server.asked)
    again = open_source(url)
    assert len(server.asked) - asked == 1, "what was indexed is only asked for its version"
    assert [again.key(number) for number in range(6)] == [source.key(number) for number in range(6)]


def test_changed_remote_shard_is_rejected_and_indexed_again(server, remote):
    url, _ = remote
    source, size = open_source(url), Preprocessing(3, 16, 16)
    (there,) = [shard for shard in source.shards if isinstance(shard.path, Remote)]
    first = 3 * source.shards.index(there)
    source.image(first, size)
    server.tag = '"2"'
    with pytest.raises(UserError, match=r"tar has changed since it was indexed"):
        source.image(first, size)
    assert torch.equal(open_source(url).image(first, size), source.image(3 - first, size))


def test_lost_connection_is_retried(server, remote, monkeypatch):
    monkeypatch.setattr("genstack.data.remote.time.sleep", lambda seconds: setattr(server, "breaks", None))
    source = open_source(remote[0])
    server.breaks = 10
    (there,) = [shard for shard in source.shards if isinstance(shard.path, Remote)]
    assert source.image(3 * source.shards.index(there), Preprocessing(3, 16, 16)).shape[0] == 3


@pytest.mark.parametrize("how", ["ranges", "tag"])
def test_servers_without_ranges_or_versions_are_rejected(server, remote, how):
    setattr(server, how, {"ranges": False, "tag": 'W/"1"'}[how])
    with pytest.raises(UserError, match="unset GENSTACK_DATA_GB"):
        open_source(remote[0])


def test_processes_share_the_download_limit(tmp_path):
    """Of two that read the same shards one lags behind, and finds what the other has fetched meanwhile."""
    ahead, behind = Quota(tmp_path, 100), Quota(tmp_path, 100)
    places = [tmp_path / f"{number}.tar" for number in range(5)]
    for place in places:
        if ahead.reserve(place, 30):
            place.write_bytes(bytes(30))
    assert [behind.reserve(place, 30) for place in places] == [True, True, True, False, False]
    assert [Quota(tmp_path, 100).reserve(place, 30) for place in places] == [True, True, True, False, False]


def test_a_limit_is_a_number(server, monkeypatch):
    monkeypatch.setenv("GENSTACK_DATA_GB", "much")
    with pytest.raises(UserError, match="GENSTACK_DATA_GB must be a number"):
        open_source(server.url("{0..1}.tar"))


def test_training_reads_remote_shards(remote):
    """The same images in the same order as from shards here, by two workers."""
    url, _ = remote
    data = ImageData(url, 16, batch_size=2, workers=2, validation=0.4)
    alone = ImageData(url, 16, batch_size=2, validation=0.4)
    for images, others, _ in zip(data.training_loader(), alone.training_loader(), range(4), strict=False):
        assert torch.equal(images.images, others.images)
