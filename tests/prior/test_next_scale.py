"""Next-scale prediction: what it reads is what VAR reads, and no code sees its own grid.

`tests/golden/var_vqvae.*` is VAR's tokenizer with random weights (FoundationVision, commit 78b9539), and what
it makes of codes. Its transformers are compared in `tests/checkpoints/test_published.py`.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from genstack.checkpoints import published
from genstack.checkpoints.import_options import ImportOptions
from genstack.checkpoints.model_file import load, save
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import BSQ, FSQ, MultiScaleResidual, VectorQuantizer
from genstack.compressor.quantizers.multiscale import MultiScale
from genstack.conditions import ClassLabels
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Known, SamplingOptions, image_seeds
from genstack.prior.next_scale import NextScale
from genstack.prior.symbols import Bits
from genstack.testing import laws_in, priors
from genstack.transformer import Backbone

GOLDEN = Path(__file__).parents[1] / "golden"
CLASSES = ClassLabels(("a", "b", "c"), dropout=0.2)
LAYOUT = CodeLayout((16, 24), 7, ((1, 2), (2, 3), (4, 5)))


class Lookup(Autoencoder):
    """A compressor of which only the quantizer matters."""

    def __init__(self, quantizer):
        super().__init__(1, Convolutional(8, 8, (1, 1, 1, 1), 1, (), False), quantizer)


def test_inputs_agree_with_var():
    golden = {key: torch.from_numpy(array) for key, array in np.load(GOLDEN / "var_vqvae.npz").items()}
    model = published.load(GOLDEN / "var_vqvae.pth", ImportOptions(scales="1,2,3,4,6,8"))
    prior = NextScale(model.layout, CLASSES, Backbone(16, 1, 2))
    prior.attach(model.compressor)
    sums = prior.lookup.sums(model.layout.split(golden["codes"])[:-1], model.layout)
    read = torch.cat([each.flatten(2).mT for each in sums], dim=1)
    torch.testing.assert_close(read, golden["prior_input_from_codes"], atol=5e-5, rtol=1e-4)


@pytest.fixture(params=[Backbone(24, 2, 3, dropout=0.0), Backbone(24, 2, 3, dropout=0.0, adaln="own")])
def prior(request):
    made = NextScale(LAYOUT, CLASSES, request.param)
    made.attach(Lookup(MultiScale((1, 2, 3), 7, 5)))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


@torch.no_grad()
def test_logits_depend_only_on_coarser_grids(prior):
    codes, labels = torch.randint(7, (1, LAYOUT.length)), torch.tensor([1])
    before = prior.logits(codes, labels)
    grid = LAYOUT.positions().grid
    for index in range(LAYOUT.length):
        changed = codes.clone()
        changed[0, index] = (changed[0, index] + 3) % 7
        moved = (prior.logits(changed, labels) - before).abs().amax(dim=(0, 2)) > 1e-6
        # shrunk and enlarged, a code may not reach all of the next grid, but attention does
        assert torch.equal(moved, grid > grid[index])


@torch.no_grad()
def test_sampling_by_grid_agrees_with_one_pass(prior):
    """Cached, at temperature 0: each code is the likeliest given the coarser ones, beside known codes too."""
    labels, seeds = torch.arange(4) % 3, image_seeds(0, range(4))
    given, mask = torch.randint(7, (4, LAYOUT.length)), torch.rand(4, LAYOUT.length) < 0.3
    codes = prior.sample(labels, SamplingOptions(temperature=0.0), seeds, Known(given, mask))
    likeliest = prior.logits(codes, labels).argmax(dim=-1)
    assert torch.equal(codes[~mask], likeliest[~mask]) and torch.equal(codes[mask], given[mask])


def test_other_compressors_are_rejected():
    with pytest.raises(UserError, match=r"several grids of codes, got one; use the quantizer MultiScale"):
        NextScale(CodeLayout((16, 16), 7, ((4, 4),)), CLASSES)
    with pytest.raises(UserError, match=r"MultiScale.*VectorQuantizer.*use the quantizer MultiScale"):
        NextScale(LAYOUT, CLASSES).attach(Lookup(VectorQuantizer(7, 5)))


def symbols_per_position(bits: int, depth: int) -> tuple[CodeLayout, Autoencoder]:
    """Grids whose positions have several symbols, and their compressor."""
    compressor = Lookup(MultiScaleResidual(BSQ(bits, depth), (1, 2, 3))).eval()
    return compressor.layout(16, 24), compressor


@pytest.mark.parametrize("law", laws_in(priors), ids=lambda law: law.__name__)
def test_several_symbols_of_a_position_keep_the_law(law, monkeypatch):
    layout, compressor = symbols_per_position(6, 2)
    assert layout.depth == 2 and layout.length == 2 * (1 + 2 + 6)
    monkeypatch.setattr(priors, "LAYOUTS", (layout,))
    monkeypatch.setattr(priors, "SMALL", (layout,))
    monkeypatch.setattr(priors, "SMALLEST", (CodeLayout((16, 16), 2, ((1, 1), (1, 1)), depth=2),))
    build = priors.Builder(NextScale)
    build.compressors[layout] = compressor
    build.compressors[priors.SMALLEST[0]] = Lookup(MultiScaleResidual(BSQ(2, 2), (1, 2)))
    law(build)


@torch.no_grad()
def test_codes_of_64_bits(tiny):
    """They are two symbols of 32 bits, all 64 predicted at once from a token."""
    layout, compressor = symbols_per_position(64, 2)
    prior = NextScale(layout, CLASSES, tiny, symbols=Bits()).eval()
    prior.attach(compressor)
    codes, labels = compressor.encode(torch.rand(2, 1, 16, 24) * 2 - 1), torch.arange(2)
    bits = prior.nats(codes, labels) / math.log(2)
    torch.testing.assert_close(bits, torch.full((2,), 64.0 * 9), rtol=0.1, atol=0)
    sampled = prior.sample(labels, SamplingOptions(), image_seeds(0, range(2)))
    assert sampled.shape == codes.shape and sampled.max() > 2**31
    assert compressor.decode(sampled, layout).isfinite().all()


def test_saved_prior_stores_the_table_once(tmp_path):
    compressor = Autoencoder(1, Convolutional(8, 8, (1, 1, 1, 1), 1, (), False), MultiScale((1, 2, 4), 7, 5))
    prior = NextScale(compressor.layout(32, 48), CLASSES, Backbone(24, 2, 3))
    model = Model(compressor.eval(), Preprocessing(1, 32, 48), CLASSES.names, prior)
    save(model, tmp_path)
    again = load(tmp_path)
    labels, seeds = torch.arange(3), image_seeds(0, range(3))
    codes = prior.sample(labels, SamplingOptions(), seeds)
    assert torch.equal(again.prior.sample(labels, SamplingOptions(), seeds), codes)
    assert again.prior.lookup.quantizer is again.compressor.quantizer
    assert not any("codebook" in name or "smoothers" in name for name in again.prior.state_dict())


def bitwise(bit_flips, quantizer=None):
    """A prior over bits on three scales, and its compressor."""
    scales = MultiScaleResidual(quantizer or BSQ(5), (1, 2, 4))
    compressor = Autoencoder(1, Convolutional(8, 8, (1, 1, 1, 1), 1, (), False), scales).eval()
    torch.manual_seed(0)
    backbone = Backbone(24, 2, 3, adaln="own")
    prior = NextScale(compressor.layout(32, 48), CLASSES, backbone, Bits(), bit_flips)
    prior.attach(compressor)
    return prior, compressor


def test_flipped_bits_are_read_and_their_corrections_predicted():
    prior, compressor = bitwise(0.3)
    images, labels = torch.rand(6, 1, 32, 48) * 2 - 1, torch.arange(6) % 3
    pairs = prior.encode(compressor, images)
    assert pairs.shape == (6, 2, prior.layout.length) and not torch.equal(pairs[:, 0], pairs[:, 1])
    torch.manual_seed(1)
    loss = prior.loss(prior.read(pairs), labels)
    torch.manual_seed(1)
    dropped = prior.condition.drop(labels)
    expected = prior.distribution.nats(prior.logits(pairs[:, 1], dropped), pairs[:, 0])
    assert torch.equal(loss, expected.mean())
    codes = prior.eval().encode(compressor, images)
    assert torch.equal(codes, compressor.encode(images)), "held-out images have no flips"
    torch.testing.assert_close(
        prior.loss(codes, labels), prior.nats(codes, labels).mean() / prior.layout.length
    )


def test_without_flips_nothing_is_drawn():
    prior, compressor = bitwise(0.0)
    images, state = torch.rand(2, 1, 32, 48) * 2 - 1, torch.get_rng_state()
    codes = prior.encode(compressor, images)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(codes, compressor.encode(images))


def test_flips_that_cannot_be_are_refused():
    with pytest.raises(UserError, match=r"bit_flips must be from 0 to 1, got 1\.5"):
        bitwise(1.5)
    with pytest.raises(UserError, match=r"needs codes of bits; use the quantizer MultiScaleResidual"):
        bitwise(0.3, FSQ((4, 4)))
    with pytest.raises(UserError, match=r"needs codes of bits"):
        prior = NextScale(LAYOUT, CLASSES, bit_flips=0.3)
        prior.attach(Lookup(MultiScale((1, 2, 3), 7, 5)))
    prior, compressor = bitwise(0.3)
    with pytest.raises(UserError, match="needs pairs of codes in training"):
        prior.loss(compressor.encode(torch.rand(2, 1, 32, 48)), torch.arange(2))
