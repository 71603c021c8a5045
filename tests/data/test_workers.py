"""A loader worker that dies is reported with the image that it was reading, in one line."""

import os
import signal

import pytest
import torch

from genstack.data.batch import ImageDataset, Loader, PictureReader, UnreadableImages
from genstack.data.images import Preprocessing
from genstack.data.sources.digits import DigitsSource
from genstack.data.transforms import Augmentation
from genstack.errors import UserError


class Deadly(DigitsSource):
    """Digits of which one ends the process that reads it."""

    __test__ = False

    def __init__(self, way):
        super().__init__("digits")
        self.way = way

    def image(self, number, preprocessing):
        if number == 11:
            self.way()
        return super().image(number, preprocessing)


def unreadable():
    raise UserError("no picture")


def loader(way, images, workers=2):
    read = PictureReader(Deadly(way), Preprocessing(1, 8, 8), True, None)
    samples = ImageDataset(read, images, Augmentation(), 0)
    return Loader(samples, [(0, index) for index in range(len(images))], 2, workers, UnreadableImages(1000))


@pytest.fixture(params=["alone", "beside another loader"])
def _handler(request, monkeypatch):
    """Another loader of torch, in the same process, leaves a handler that raises when any worker dies."""
    before = signal.getsignal(signal.SIGCHLD)
    if request.param != "alone":
        monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_SIGCHLD_handler_set", False)
        torch.utils.data._utils.signal_handling._set_SIGCHLD_handler()
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.slow
@pytest.mark.usefixtures("_handler")
@pytest.mark.parametrize(
    ("way", "message"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), r"was killed \(SIGKILL\) reading digits/11;"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), r"crashed \(SIGSEGV\) reading digits/11;"),
        (lambda: os._exit(3), r"ended with code 3 reading digits/11;"),
    ],
)
def test_a_dead_worker_is_reported_with_its_image(way, message, capfd):
    before = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(UserError, match=message) as error:
        list(loader(way, range(40)))
    assert "\n" not in str(error.value)
    assert signal.getsignal(signal.SIGCHLD) is before


@pytest.mark.slow
def test_worker_error_is_one_line():
    with pytest.raises(UserError, match="none of 1 images can be read; the last error: no picture") as error:
        list(loader(unreadable, [11], workers=1))
    assert "\n" not in str(error.value)


def test_other_errors_are_not_changed():
    def fails():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(loader(fails, [11], workers=0))
