"""Next-scale prediction against what VAR itself computes, and what makes it exact: no code sees its own grid.

`tests/golden/var_*` are the random tensors of VAR's quantizer and of two of its transformers
(FoundationVision, commit 78b9539), and what they compute: logits, and likeliest codes with guidance.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from genstack.checkpoints.files import load, save
from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer
from genstack.compressor.quantizers.multiscale import MultiScale
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Backbone, ClassLabels, Known, SamplingOptions, image_seeds
from genstack.prior.next_scale import NextScale

GOLDEN = Path(__file__).parents[1] / "golden"
SCALES = (1, 2, 3, 4, 6, 8)
CLASSES = ClassLabels(("a", "b", "c"), dropout=0.2)
LAYOUT = CodeLayout((16, 24), 7, ((1, 2), (2, 3), (4, 5)))


class Lookup(Autoencoder):
    """A compressor of which only the quantizer matters."""

    def __init__(self, quantizer):
        super().__init__(1, Convolutional(8, 8, (1, 1, 1, 1), 1, (), False), quantizer)


def arrays(name):
    return {key: torch.from_numpy(array) for key, array in np.load(GOLDEN / f"{name}.npz").items()}


def quantizer():
    """VAR's quantizer; its four convolutions and table under our names."""
    made = MultiScale(SCALES, codebook_size=128, dim=8)
    state = made.state_dict()
    tensors = load_file(GOLDEN / "var_quantizer.safetensors")
    state["codebook.weight"] = tensors["quantize.embedding.weight"]
    for number in range(4):
        for kind in ("weight", "bias"):
            name = f"quantize.quant_resi.qresi_ls.{number}.{kind}"
            state[f"smoothers.{number}.{kind}"] = tensors[name]
    made.load_state_dict(state)
    return made.eval()


def published(name):
    """VAR's transformer as ours."""
    theirs = load_file(GOLDEN / f"{name}.safetensors")
    width, shared = theirs["word_embed.weight"].shape[0], "shared_ada_lin.1.weight" in theirs
    depth = sum(key.endswith("mat_qkv.weight") for key in theirs)
    backbone = Backbone(
        width,
        depth,
        theirs["blocks.0.attn.scale_mul_1H11"].shape[1],
        norm="layer",
        feedforward="gelu_tanh",
        positions="learned",
        qk_norm="unit",
        dropout=0.0,
        bias=True,
        adaptive="shared" if shared else "own",
    )
    layout = CodeLayout((32, 32), 128, tuple((side, side) for side in SCALES))
    prior = NextScale(layout, ClassLabels(tuple("abcdefghij"), dropout=0.1), backbone)
    prior.attach(Lookup(quantizer()))
    places = theirs["pos_1LC"][0].clone()
    places[0] += theirs["pos_start"][0, 0]
    nowhere = torch.zeros(1, width)
    ours = {
        "prefix.table.weight": theirs["class_emb.weight"],
        "read.weight": theirs["word_embed.weight"],
        "read.bias": theirs["word_embed.bias"],
        "transformer.places.parts.0.table.weight": torch.cat([theirs["lvl_embed.weight"], nowhere]),
        "transformer.places.parts.1.table.weight": torch.cat([places, nowhere]),
        "transformer.norm.changes.linear.weight": theirs["head_nm.ada_lin.1.weight"],
        "transformer.norm.changes.linear.bias": theirs["head_nm.ada_lin.1.bias"],
        "head.weight": theirs["head.weight"],
        "head.bias": theirs["head.bias"],
    }
    if shared:
        ours["transformer.shared.linear.weight"] = theirs["shared_ada_lin.1.weight"]
        ours["transformer.shared.linear.bias"] = theirs["shared_ada_lin.1.bias"]
    for index in range(depth):
        block, layer = f"blocks.{index}", f"transformer.layers.{index}"
        if shared:
            ours[f"{layer}.changes.offset"] = theirs[f"{block}.ada_gss"][0, 0]
        else:
            ours[f"{layer}.changes.linear.weight"] = theirs[f"{block}.ada_lin.1.weight"]
            ours[f"{layer}.changes.linear.bias"] = theirs[f"{block}.ada_lin.1.bias"]
        biases = [theirs[f"{block}.attn.{name}"] for name in ("q_bias", "zero_k_bias", "v_bias")]
        ours |= {
            f"{layer}.attention.read.weight": theirs[f"{block}.attn.mat_qkv.weight"],
            f"{layer}.attention.read.bias": torch.cat(biases),
            f"{layer}.attention.norm.scale": theirs[f"{block}.attn.scale_mul_1H11"].flatten(),
        }
        for mine, other in (
            ("attention.write", "attn.proj"),
            ("feedforward.read", "ffn.fc1"),
            ("feedforward.write", "ffn.fc2"),
        ):
            for kind in ("weight", "bias"):
                ours[f"{layer}.{mine}.{kind}"] = theirs[f"{block}.{other}.{kind}"]
    prior.load_state_dict(ours)
    return prior.eval()


def test_coarser_grids_are_read_as_var_reads_them():
    golden, layout = arrays("var_quantizer"), CodeLayout((32, 32), 128, tuple((s, s) for s in SCALES))
    prior = NextScale(layout, CLASSES, Backbone(16, 1, 2))
    prior.attach(Lookup(quantizer()))
    sums = prior.lookup.sums(layout.split(golden["codes"])[:-1], layout)
    read = torch.cat([each.flatten(2).mT for each in sums], dim=1)
    torch.testing.assert_close(read, golden["prior_input_from_codes"], atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["var_transformer", "var_transformer_shared_aln"])
@torch.no_grad()
def test_var_computes_the_same(name):
    prior, golden = published(name), arrays(name)
    null = prior.condition.null(golden["condition"])
    for condition, logits in ((golden["condition"], "logits"), (null, "logits_null")):
        found = prior.logits(golden["codes"], condition)
        torch.testing.assert_close(found, golden[logits], atol=5e-5, rtol=1e-4)
    for strength in ("0", "1.5", "4"):
        options = SamplingOptions(temperature=0.0, guidance=1 + float(strength), guidance_schedule="linear")
        codes = prior.sample(golden["condition"], options, image_seeds(0, range(2)))
        assert torch.equal(codes, golden[f"greedy_codes_cfg{strength}"])


@pytest.fixture(params=[Backbone(24, 2, 3, dropout=0.0), Backbone(24, 2, 3, dropout=0.0, adaptive="own")])
def prior(request):
    made = NextScale(LAYOUT, CLASSES, request.param)
    made.attach(Lookup(MultiScale((1, 2, 3), 7, 5)))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


@torch.no_grad()
def test_logits_of_a_grid_see_all_of_the_coarser_grids_and_nothing_else(prior):
    codes, labels = torch.randint(7, (1, LAYOUT.length)), torch.tensor([1])
    before = prior.logits(codes, labels)
    grid = LAYOUT.places().grid
    for index in range(LAYOUT.length):
        changed = codes.clone()
        changed[0, index] = (changed[0, index] + 3) % 7
        moved = (prior.logits(changed, labels) - before).abs().amax(dim=(0, 2)) > 1e-6
        # shrunk and enlarged, a code may not reach all of the next grid, but attention does
        assert torch.equal(moved, grid > grid[index])


@torch.no_grad()
def test_what_is_drawn_grid_by_grid_has_the_logits_of_one_pass(prior):
    """Cached, at temperature 0: each code is the likeliest given the coarser ones, beside known codes too."""
    labels, seeds = torch.arange(4) % 3, image_seeds(0, range(4))
    given, mask = torch.randint(7, (4, LAYOUT.length)), torch.rand(4, LAYOUT.length) < 0.3
    codes = prior.sample(labels, SamplingOptions(temperature=0.0), seeds, Known(given, mask))
    likeliest = prior.logits(codes, labels).argmax(dim=-1)
    assert torch.equal(codes[~mask], likeliest[~mask]) and torch.equal(codes[mask], given[mask])


def test_other_compressors_are_refused_at_the_start():
    with pytest.raises(UserError, match=r"several grids.*not on 1 with 1.*multiscale.yaml"):
        NextScale(CodeLayout((16, 16), 7, ((4, 4),)), CLASSES)
    with pytest.raises(UserError, match=r"MultiScale.*VectorQuantizer.*multiscale.yaml"):
        NextScale(LAYOUT, CLASSES).attach(Lookup(VectorQuantizer(7, 5)))


def test_a_saved_prior_is_the_same_prior_and_holds_the_table_once(tmp_path):
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
