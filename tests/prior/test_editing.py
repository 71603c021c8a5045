"""Holes in pictures: what is known stays, what lay in the mask does not matter, masks grow as needed."""

import pytest
import torch
from einops import reduce, repeat
from torch import nn
from torch.nn import functional

from genstack.compressor import Compressor
from genstack.conditions import ClassLabels
from genstack.data.images import Preprocessing
from genstack.inputs import ConditionInputs
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Autoregressive, Known, SamplingOptions
from genstack.prior.editing import (
    cells_to_pixels,
    completion_mask,
    dilate,
    encode_known,
    fill_mask,
    ignores_known,
    outpainting_canvas,
    pixels_to_cells,
    receptive_field,
)
from genstack.transformer import Backbone

LEVELS = 9
TINY = Backbone(width=24, depth=1, heads=3, dropout=0.0)


class Cells(Compressor):
    """Codes are the mean grey of 4 x 4 pixels; of so many cells around, the sum, in turns of LEVELS."""

    channels = 1

    def __init__(self, reach: int = 0):
        super().__init__()
        self.reach, self.weight = reach, nn.Parameter(torch.zeros(1))

    def layout(self, height, width):
        return CodeLayout((height, width), LEVELS, ((height // 4, width // 4),))

    def encode(self, images):
        cells = reduce((images + 1) / 2 * (LEVELS - 1), "b 1 (h r) (w c) -> b 1 h w", "mean", r=4, c=4)
        side = 2 * self.reach + 1
        sums = functional.avg_pool2d(cells.round(), side, 1, self.reach, divisor_override=1)
        return (sums.long() % LEVELS).flatten(1)

    def decode(self, codes, layout):
        (grid,) = layout.split(codes)
        return repeat(grid[..., 0] / (LEVELS - 1) * 2 - 1, "b h w -> b 1 (h r) (w c)", r=4, c=4)


Cells.__abstractmethods__ = frozenset()  # what training asks of a compressor is not needed here


@pytest.fixture
def model() -> Model:
    prior = Autoregressive(CodeLayout((16, 24), LEVELS, ((4, 6),)), ClassLabels(("a", "b")), TINY)
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.4)
    return Model(Cells(), Preprocessing(1, 16, 24), ("a", "b"), prior)


def edit(model, images, mask, label=0, indices=(0, 1), **options):
    inputs = ConditionInputs(torch.full((len(images),), label))
    return model.edit(images, mask, inputs, SamplingOptions(), 3, indices, **options)


def pictures(height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(2, 1, height, width) * 2 - 1


MASKS = {
    "bottom": completion_mask("top:0.5", 16, 24),
    "middle": functional.pad(torch.ones(5, 7), (6, 11, 4, 7)).bool(),
    "pixels": torch.rand(16, 24, generator=torch.Generator().manual_seed(1)) < 0.02,
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_editing_keeps_unmasked_and_ignores_masked_pixels(model, mask):
    images = pictures()
    edited = edit(model, images, mask)
    assert torch.equal(edited[:, :, ~mask], images[:, :, ~mask])
    assert (edited != images)[:, :, mask].any()
    other = torch.where(mask, pictures(), images)
    assert torch.equal(edit(model, other, mask), edited)
    assert torch.equal(edit(model, images[1:], mask, indices=[1]), edited[1:])
    assert not torch.equal(edit(model, images, mask, indices=[5, 6]), edited)


def test_full_mask_samples_and_empty_mask_keeps_the_picture(model):
    images = pictures()
    everything = torch.ones(16, 24, dtype=torch.bool)
    inputs = ConditionInputs(torch.tensor([0, 0]))
    plain = model.sample(inputs, SamplingOptions(), 3, [0, 1])
    assert torch.equal(edit(model, images, everything), plain)
    assert torch.equal(edit(model, images, ~everything), images)
    assert not torch.equal(edit(model, images, everything, label=1), plain), "another class"


@pytest.mark.parametrize("grow", [0, 1])
def test_known_codes_equal_those_of_the_picture(model, grow):
    """All codes outside the dilated mask are kept if the picture consists of whole cells."""
    compressor, mask = model.compressor, MASKS["middle"]
    images = compressor.decode(torch.randint(LEVELS, (2, 24)), model.layout)
    known = encode_known(compressor, images, mask, (grow,))
    expected = torch.ones(4, 6, dtype=torch.bool)
    expected[1 - grow : 3 + grow, 1 - grow : 4 + grow] = False
    assert torch.equal(known.mask, expected.flatten().expand(2, -1))
    assert torch.equal(known.values[known.mask], compressor.encode(images)[known.mask])


@pytest.mark.slow
def test_a_picture_grows_on_all_sides(model):
    image = pictures()[0]
    canvas, mask = outpainting_canvas(image, (32, 44), (0.5, 0.5), (4, 4))
    assert (~mask).sum() == 16 * 24 and torch.equal(canvas[:, 8:24, 8:32], image)
    edited = edit(model, canvas[None], mask, indices=[0])[0]
    assert torch.equal(edited[:, 8:24, 8:32], image)
    corner, mask = outpainting_canvas(image, (32, 44), (1.0, 0.0), (4, 4))
    assert torch.equal(corner[:, 16:, :24], image) and not mask[16:, :24].any()
    with pytest.raises(ValueError, match="size 8x44 is smaller than the image; use at least 16x24"):
        outpainting_canvas(image, (8, 44), (0.5, 0.5), (4, 4))
    with pytest.raises(ValueError, match=r"place must be two shares from 0 to 1, got 1\.5,0\.0"):
        outpainting_canvas(image, (32, 44), (1.5, 0.0), (4, 4))


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_receptive_field_of_an_encoder_is_measured(reach):
    compressor = Cells(reach)
    assert receptive_field(compressor, compressor.layout(36, 44)) == (reach,)


def test_masks_that_cover_all_codes_are_rejected(model):
    with pytest.raises(ValueError, match=r"grows by 3 codes.*keep more of the image"):
        edit(model, pictures(), MASKS["middle"], grow=3)


def test_codes_without_position_are_rejected():
    class Row(Cells):
        def layout(self, height, width):
            return CodeLayout((height, width), LEVELS, ((1, 24),))

    with pytest.raises(
        ValueError, match=r"the 24 codes .* have no position in the image.*sample whole images"
    ):
        encode_known(Row(), pictures(), MASKS["middle"], (0,))
    with pytest.raises(ValueError, match="have no position in the image"):
        receptive_field(Row(), Row().layout(16, 24))


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("top:0.5", (slice(0, 3), slice(None))),
        ("bottom:0.34", (slice(4, 6), slice(None))),
        ("left:0.25", (slice(None), slice(0, 2))),
        ("right:.75", (slice(None), slice(2, 8))),
    ],
)
def test_completion_keeps_a_side(keep, kept):
    mask = torch.ones(6, 8, dtype=torch.bool)
    mask[kept] = False
    assert torch.equal(completion_mask(keep, 6, 8), mask)


@pytest.mark.parametrize("keep", ["top", "up:0.5", "top:1", "top:0", "top:half", "top:0.5.1", "top:."])
def test_invalid_side_is_rejected(keep):
    with pytest.raises(ValueError, match=f"invalid keep '{keep}'.*top:0.5"):
        completion_mask(keep, 6, 8)


def test_masks_are_filled_with_nearby_colours():
    images, mask = torch.full((1, 1, 20, 30), 0.25), torch.ones(20, 30, dtype=torch.bool)
    images[..., 15:] = -0.5
    mask[:4] = False
    found = fill_mask(torch.where(mask, 1.0, images), mask)
    torch.testing.assert_close(found[..., :4, :], images[..., :4, :])
    assert found.min() >= -0.5001 and found.max() <= 0.2501
    torch.testing.assert_close(found[0, 0, 5, :12], torch.full((12,), 0.25))
    assert torch.equal(fill_mask(images, torch.ones_like(mask)), torch.zeros_like(images))


def test_cells_and_pixels_against_loops():
    pixels, chance = torch.zeros(13, 22, dtype=torch.bool), torch.Generator().manual_seed(2)
    pixels[torch.randint(13, (6,), generator=chance), torch.randint(22, (6,), generator=chance)] = True
    cells = pixels_to_cells(pixels, (5, 7))
    assert (cells_to_pixels(cells, (13, 22)) | ~pixels).all(), "every marked pixel lies under a marked cell"
    wide = dilate(cells, 1)
    for row in range(5):
        for column in range(7):
            near = cells[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            assert wide[row, column] == near.any()
    assert torch.equal(dilate(cells, 0), cells)


def test_causal_priors_ignore_later_known_codes(model):
    codes = torch.zeros(1, 24, dtype=torch.int64)
    order = torch.arange(24)[None]
    assert not ignores_known(model.prior, Known(codes, order < 12))
    assert ignores_known(model.prior, Known(codes, order >= 12))
    assert not ignores_known(model.prior, Known(codes, order >= 0))
    assert not ignores_known(model.prior, Known(codes, order < 0))
