"""The convolutional network against the projects whose networks it computes.

`tests/golden/{taming_vqgan,ldm_vq_noattn}.safetensors` are the tensors, random and without `loss.*`, of
checkpoints as taming-transformers and latent-diffusion (CompVis) write them; the `.npz` beside them is what
the code of those projects computes from them, and the `.yaml` their configuration.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import VQModel
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from genstack.compressor import Autoencoder, Convolutional
from genstack.compressor.quantizers import VectorQuantizer

GOLDEN = Path(__file__).parents[1] / "golden"
CLOSE = {"atol": 5e-5, "rtol": 1e-4}

TAMING = Convolutional(dim=16, width=32, multipliers=(1, 1, 2), blocks=1, attention=(2,))
LATENT_DIFFUSION = Convolutional(
    dim=3, width=32, multipliers=(1, 1, 1), blocks=1, attention=(), middle_attention=False
)
SMALL = Convolutional(dim=6, width=12, multipliers=(1, 2, 3), blocks=2, attention=(2,), groups=4)

#: Our names, and theirs as patterns, of the parts of a network whose coarsest level is `top`.
NAMES = {
    r"coder\.conv_in": "coder.first",
    r"coder\.conv_out": "coder.last",
    r"coder\.norm_out": "coder.norm",
    r"mid\.block_1": "middle.before",
    r"mid\.attn_1": "middle.attention",
    r"mid\.block_2": "middle.after",
    r"(?:down|up)\.(\d)\.block": r"levels.\1.blocks",
    r"(?:down|up)\.(\d)\.attn": r"levels.\1.attentions",
    r"(down|up)\.(\d)\.\1sample": r"\1samples.\2",
    r"\.nin_shortcut": ".shortcut",
    r"\.q\.": ".query.",
    r"\.k\.": ".key.",
    r"\.v\.": ".value.",
    r"\.proj_out": ".out",
    r"^quant_conv": "to_quantizer",
    r"^post_quant_conv": "from_quantizer",
    r"^quantize\.embedding": "quantizer.codebook",
}


def renamed(name: str, top: int) -> str:
    """Our name of one of taming's tensors: theirs counts the decoder's levels backwards."""
    name = re.sub(r"(?<=up\.)\d", lambda level: str(top - int(level[0])), name)
    for theirs, ours in NAMES.items():
        name = re.sub(theirs, ours, name)
    return name


def from_golden(name: str, network: Convolutional, quantizer: VectorQuantizer) -> Autoencoder:
    """The model of a golden file, loaded strictly."""
    model = Autoencoder(3, network, quantizer).eval()
    top = len(network.multipliers) - 1
    theirs = {renamed(key, top): value for key, value in load_file(GOLDEN / f"{name}.safetensors").items()}
    state = {"quantizer.codebook.seeded": torch.tensor(True)}
    state["quantizer.codebook.idle"] = torch.zeros(quantizer.codebook_size, dtype=torch.int64)
    model.load_state_dict({**state, **theirs})
    return model


@pytest.mark.parametrize(
    ("name", "network", "codebook_size", "dim"),
    [("taming_vqgan", TAMING, 128, 8), ("ldm_vq_noattn", LATENT_DIFFUSION, 100, 3)],
)
def test_published_models_give_their_numbers(name, network, codebook_size, dim):
    model = from_golden(name, network, VectorQuantizer(codebook_size, dim, normalize=False))
    golden = {key: torch.from_numpy(array) for key, array in np.load(GOLDEN / f"{name}.npz").items()}
    images, codes = golden["images"], golden["codes"].flatten(1)
    layout = model.layout(*images.shape[-2:])
    with torch.no_grad():
        torch.testing.assert_close(model.latents(images), golden["latents_before_quantization"], **CLOSE)
        assert torch.equal(model.encode(images), codes)
        torch.testing.assert_close(model(images).images, golden["reconstruction"], **CLOSE)
        torch.testing.assert_close(model.decode(codes, layout), golden["decoded_from_codes"], **CLOSE)
        random = golden["random_codes"].flatten(1)
        torch.testing.assert_close(model.decode(random, layout), golden["decoded_from_random_codes"], **CLOSE)


def in_diffusers(network: Convolutional, channels: int) -> VQModel:
    """The model of diffusers that has attention at the coarsest level."""
    levels = len(network.multipliers)
    return VQModel(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * (levels - 1) + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (levels - 1),
        block_out_channels=network.widths,
        layers_per_block=network.blocks,
        latent_channels=network.dim,
        norm_num_groups=network.groups,
    ).eval()


def from_diffusers(name: str) -> str:
    """Our name of one of diffusers' tensors."""
    names = {
        r"(down|up)_blocks\.(\d)\.resnets": r"levels.\2.blocks",
        r"(down|up)_blocks\.(\d)\.attentions": r"levels.\2.attentions",
        r"(down|up)_blocks\.(\d)\.(down|up)samplers\.0": r"\1samples.\2",
        r"mid_block\.resnets\.0": "middle.before",
        r"mid_block\.resnets\.1": "middle.after",
        r"mid_block\.attentions\.0": "middle.attention",
        r"conv_norm_out": "norm",
        r"conv_in": "first",
        r"conv_out": "last",
        r"group_norm": "norm",
        r"conv_shortcut": "shortcut",
        r"to_q": "query",
        r"to_k": "key",
        r"to_v": "value",
        r"to_out\.0": "out",
    }
    for theirs, ours in names.items():
        name = re.sub(theirs, ours, name)
    return name


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_diffusers_computes_the_same(channels):
    torch.manual_seed(0)
    theirs = in_diffusers(SMALL, channels)
    encoder, decoder = SMALL.encoder(channels).eval(), SMALL.decoder(channels).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # so that no zero or one hides a mistake
        for ours, other in [(encoder, theirs.encoder), (decoder, theirs.decoder)]:
            state = {from_diffusers(key): value for key, value in other.state_dict().items()}
            shapes = {key: value.shape for key, value in ours.state_dict().items()}
            ours.load_state_dict({key: value.reshape(shapes[key]) for key, value in state.items()})
        images, latents = torch.randn(2, channels, 20, 44), torch.randn(2, SMALL.dim, 5, 11)
        torch.testing.assert_close(encoder(images), theirs.encoder(images), **CLOSE)
        torch.testing.assert_close(decoder(latents, (20, 44)), theirs.decoder(latents), **CLOSE)


def test_the_defaults_are_vqgan_f16():
    """The published model has 72,141,699 parameters with 1024 codes of 256 numbers."""
    with torch.device("meta"):
        quantizer = VectorQuantizer(1024, 256, normalize=False)
        model = Autoencoder(3, Convolutional(), quantizer)
    assert sum(parameter.numel() for parameter in model.parameters()) == 72_141_699


def test_forgotten_activations_change_no_gradient():
    plain = Convolutional(dim=6, width=8, multipliers=(1, 2), blocks=1, attention=(1,))
    thrifty = Convolutional(dim=6, width=8, multipliers=(1, 2), blocks=1, attention=(1,), checkpoint=True)
    gradients, saved = [], []
    for plan in (plain, thrifty):
        torch.manual_seed(0)
        encoder, decoder = plan.encoder(3), plan.decoder(3)
        images, sizes = torch.randn(2, 3, 10, 14), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t
        ):
            loss = decoder(encoder(images), (10, 14)).square().mean()
        loss.backward()
        gradients.append([p.grad for p in (*encoder.parameters(), *decoder.parameters())])
        saved.append(sum(sizes))
    torch.testing.assert_close(*gradients, atol=0, rtol=0)
    assert saved[1] < saved[0] / 2


@pytest.mark.parametrize(
    ("size", "nearest"), [((50, 64), "48x64"), ((64, 57), "64x64"), ((3, 20), "16x16"), ((100, 9), "96x16")]
)
def test_sizes_off_the_stride_are_refused_with_the_nearest(size, nearest):
    with pytest.raises(ValueError, match=f"stride 16; use {nearest}"):
        Convolutional().grid(*size)


def test_latents_of_another_size_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        SMALL.decoder(3)(torch.randn(1, SMALL.dim, 3, 4), (16, 12))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 0}, "width 0"),
        ({"multipliers": ()}, "multipliers"),
        ({"multipliers": (1, 0)}, "multipliers"),
        ({"attention": (5,)}, "level 5 of 5"),
        ({"attention": (-1,)}, "level -1"),
        ({"dropout": 1.0}, "dropout 1.0"),
    ],
)
def test_impossible_plans_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Convolutional(**wrong)


@pytest.mark.parametrize(
    ("width", "groups", "found"),
    [(128, 32, 32), (32, 32, 32), (48, 32, 12), (20, 32, 5), (7, 32, 1), (12, 4, 4)],
)
def test_groups_divide_the_channels(width, groups, found):
    plan = Convolutional(width=width, multipliers=(1,), attention=(), groups=groups)
    assert plan.encoder(1).norm.num_groups == found


def test_attention_keeps_no_matrix_of_all_pairs():
    """Only the kernel that needs none is allowed; it refuses queries with strided channels."""
    attention = SMALL.encoder(3).middle.attention
    with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        attention(torch.randn(1, SMALL.widths[-1], 4, 6))


def test_autocast_reaches_the_networks():
    encoder = SMALL.encoder(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(torch.randn(1, 3, 8, 12)).dtype == torch.bfloat16
