"""Error maps and embedded images."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from genstack.report.picture import COLOURS, error_maps, errors, pictures


def test_errors_are_levels_of_255():
    one, other = torch.full((1, 3, 2, 5), -1.0), torch.full((1, 3, 2, 5), -1.0)
    other[0, 0, 1, 3] = 1.0  # 255 levels in one of three channels
    found = errors(one, other)
    assert found[0, 1, 3] == 85 and found.sum() == 85


def test_error_maps_span_all_colours():
    (picture,) = error_maps(torch.linspace(0, 50, 11).reshape(1, 1, 11), 50.0)
    pixels = np.asarray(picture).astype(int)[0]
    assert tuple(pixels[0]) == COLOURS[0] and tuple(pixels[-1]) == COLOURS[-1]
    brightness = pixels @ [299, 587, 114]
    assert (np.diff(brightness) > 0).all()


def test_embedded_image_keeps_its_pixels():
    image = torch.linspace(-1, 1, 12).reshape(1, 1, 3, 4)
    (picture,) = pictures(image, ["a ramp"])
    data = base64.b64decode(picture.uri.removeprefix("data:image/png;base64,"))
    stored = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    assert (stored == ((image[0, 0] + 1) * 127.5).round().numpy()).all() and picture.squares
    (large,) = pictures(torch.zeros(1, 3, 20, 1000), ["long"])
    assert (large.width, large.height) == (256, 5)
