"""Models of bits, of MaskBit and BitDance, against what their own code computes (`tests/golden`)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from genstack.checkpoints.foreign import read
from genstack.checkpoints.formats.seed_voken import symbols
from genstack.checkpoints.import_options import ImportOptions
from genstack.checkpoints.published import load
from genstack.errors import UserError
from genstack.prior import SamplingOptions, image_seeds
from genstack.prior.order import Confidence

GOLDEN = Path(__file__).parents[1] / "golden"
CLOSE = {"atol": 5e-5, "rtol": 1e-4}


def golden(name):
    """The arrays of a file, as tensors."""
    return {key: torch.from_numpy(array) for key, array in np.load(GOLDEN / f"{name}.npz").items()}


@torch.no_grad()
def test_tokenizers_of_maskbit():
    model, expected = load(GOLDEN / "maskbit_tokenizer.bin").compressor, golden("maskbit_tokenizer")
    images, codes = expected["images"] * 2 - 1, expected["codes"].flatten(1)
    layout = model.code_layout(16, 24)
    assert torch.equal(model.encode(images), codes)
    torch.testing.assert_close(model.latents(images), expected["latents_before_quantization"], **CLOSE)
    assert torch.equal(model.quantizer.lookup(codes, layout), expected["quantized"])
    torch.testing.assert_close((model(images).images + 1) / 2, expected["reconstruction"], **CLOSE)
    for name in ("codes", "random_codes"):
        decoded = (model.decode(expected[name].flatten(1), layout) + 1) / 2
        torch.testing.assert_close(decoded, expected[f"decoded_from_{name}"], **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("renamed", [False, True])
def test_generators_of_maskbit(renamed, tmp_path):
    """Groups of bits are masked by themselves; the layer that reads bits has one of two names."""
    state, file = read(GOLDEN / "maskbit_generator.bin").tensors(), tmp_path / "maskbit_generator.bin"
    if renamed:
        state = {name.replace("token_emb", "input_proj"): value.clone() for name, value in state.items()}
    torch.save({name: value.clone() for name, value in state.items()}, file)
    tokenizer, expected = str(GOLDEN / "maskbit_tokenizer.bin"), golden("maskbit_generator")
    model = load(file, ImportOptions(heads=4, compressor=tokenizer, resolution="16"))
    codes, labels = expected["split_codes"].flatten(1), expected["condition"]
    assert (model.layout.length, model.layout.codebook_size, len(model.classes)) == (32, 8, 10)
    whole = model.layout.joint(codes)
    assert torch.equal(whole, expected["codes"])
    single = load(GOLDEN / "maskbit_tokenizer.bin").compressor
    images = model.compressor.decode(codes, model.layout)
    assert torch.equal(images, single.decode(whole, single.code_layout(16, 16)))
    assert torch.equal(model.compressor.encode(images), regrouped(single.encode(images), 2, 3))
    masked, network = expected["masked_split_codes"].flatten(1) == 8, model.prior.network
    for name, hidden, condition in (
        ("logits", masked, labels),
        ("logits_null", masked, model.condition.null(labels)),
        ("logits_all_masked", torch.ones_like(masked), labels),
    ):
        encoded = network.encode_condition(condition)
        found = network(codes, hidden, torch.ones_like(masked), encoded)
        torch.testing.assert_close(found.view_as(expected[name]), expected[name], **CLOSE)
    preset = model.presets["maskbit"]
    assert (preset["guidance"], preset["guidance_schedule"], model.prior.steps) == (8.1, "cosine", 64)
    model.prior.order, greedy = Confidence(0.0), golden("maskbit_generator_greedy")
    guided = {"guidance": 4.0, "guidance_schedule": "cosine", "guidance_power": 2.5, "guidance_peak": "end"}
    for name, options in (
        ("greedy_codes_step5", SamplingOptions(temperature=0.0, steps=5)),
        ("greedy_codes_step7_cfg3_power2.5", SamplingOptions(temperature=0.0, steps=7, **guided)),
    ):
        found = model.prior.sample(greedy["condition"], options, image_seeds(0, range(3)))
        assert torch.equal(found, greedy[name].flatten(1))


def regrouped(codes, groups, bits):
    """Codes in groups of bits, the lowest first."""
    places = bits * torch.arange(groups)
    return (codes[..., None] >> places & 2**bits - 1).flatten(1)


def test_generators_of_maskbit_need_its_tokenizer(tmp_path):
    taming, file = str(GOLDEN / "taming_vqgan.safetensors"), GOLDEN / "maskbit_generator.bin"
    with pytest.raises(UserError, match="give MaskBit's tokenizer as --compressor"):
        load(file, ImportOptions(heads=4, compressor=taming, resolution="16"))
    state = read(file).tensors()
    state["norm_after_transformer.weight"] = torch.ones(48)
    torch.save({name: value.clone() for name, value in state.items()}, tmp_path / "prenorm.bin")
    with pytest.raises(UserError, match="use_prenorm of MaskBit is not supported"):
        load(tmp_path / "prenorm.bin", ImportOptions(heads=4, compressor=taming))


def test_other_tensors_of_maskbit_are_refused(tmp_path):
    state = read(GOLDEN / "maskbit_tokenizer.bin").tensors()
    places = state["quantize.bits_to_indices"].flip(0)
    torch.save(state | {"quantize.bits_to_indices": places}, tmp_path / "turned.bin")
    with pytest.raises(UserError, match="must be the powers of two of 6 bits"):
        load(tmp_path / "turned.bin")


@torch.no_grad()
def test_a_decoder_of_maskbit_may_have_more_blocks(tmp_path):
    """A second block that writes zeros adds nothing."""
    state = read(GOLDEN / "maskbit_tokenizer.bin").tensors()
    for name, value in list(state.items()):
        place, found, part = name.partition("res_blocks.0.")
        if found and name.startswith("decoder.") and "shortcut" not in part:
            wide = state[f"{place}res_blocks.0.conv2.weight"].shape[0]
            shape = (wide, *((wide, 3, 3) if "conv" in part else ()))
            state[f"{place}res_blocks.1.{part}"] = (
                torch.zeros(shape) if "conv" in part else value[:1].expand(wide)
            )
    torch.save({name: value.clone() for name, value in state.items()}, tmp_path / "more.bin")
    model = load(tmp_path / "more.bin").compressor
    assert (model.network.blocks, model.network.decoder_blocks) == (1, 2)
    expected = golden("maskbit_tokenizer")
    decoded = (model.decode(expected["codes"].flatten(1), model.code_layout(16, 24)) + 1) / 2
    torch.testing.assert_close(decoded, expected["decoded_from_codes"], **CLOSE)


@torch.no_grad()
def test_an_encoder_of_maskbit_may_average(tmp_path):
    """Without strided convolutions; with those that compute means, it is the same."""
    state = {name: value.clone() for name, value in read(GOLDEN / "maskbit_tokenizer.bin").tensors().items()}
    strided = [name for name in state if "down_conv" in name]
    for name in strided:
        state[name].zero_()
        if name.endswith("weight"):
            state[name].diagonal()[:2, :2] = 1 / 4
    torch.save(state, tmp_path / "means.bin")
    torch.save({name: state[name] for name in state.keys() - strided}, tmp_path / "average.bin")
    means, average = (load(tmp_path / f"{name}.bin").compressor for name in ("means", "average"))
    assert (means.network.downsampling, average.network.downsampling) == ("convolution", "average")
    images = golden("maskbit_tokenizer")["images"] * 2 - 1
    torch.testing.assert_close(average.latents(images), means.latents(images), **CLOSE)


@torch.no_grad()
def test_tokenizers_of_bitdance():
    model, expected = load(GOLDEN / "bitdance_ae.safetensors").compressor, golden("bitdance_ae")
    images, layout = expected["images"], model.code_layout(16, 24)
    codes = model.encode(images)
    assert torch.equal(model.quantizer.lookup(codes, layout), expected["bits"].float())
    torch.testing.assert_close(model.latents(images), expected["latents_before_quantization"], **CLOSE)
    torch.testing.assert_close(model(images).images, expected["reconstruction"], **CLOSE)
    for name in ("bits", "random_bits"):
        decoded = model.images(expected[name].float(), (16, 24))
        torch.testing.assert_close(decoded, expected[f"decoded_from_{name}"], **CLOSE)
    grouped = expected["grouped_indices"]  # bits in four groups, the first the lowest
    assert torch.equal(codes.view(2, 4, 6), sum(grouped[:, group] * 8**group for group in range(4)))


@torch.no_grad()
def test_codes_of_many_bits_are_symbols_of_16(tmp_path):
    """As the published `ae_d16c32`; the way back from its symbols has all bits."""
    assert [symbols(bits) for bits in (12, 18, 30, 32, 128, 256)] == [1, 1, 1, 2, 8, 16]
    state = load_file(GOLDEN / "bitdance_ae.safetensors")
    for name in ("encoder.conv_out.weight", "encoder.conv_out.bias"):
        state[name] = state[name].repeat_interleave(3, dim=0)[:32].clone()
    for name in (name for name in state if state[name].shape[1:2] == (12,)):
        state[name] = state[name].repeat_interleave(3, dim=1)[:, :32].clone()
    save_file(state, tmp_path / "wide.safetensors")
    model = load(tmp_path / "wide.safetensors").compressor
    layout = model.code_layout(16, 24)
    assert (layout.depth, layout.codebook_size, layout.length) == (2, 2**16, 48)
    images = golden("bitdance_ae")["images"]
    signs = torch.where(model.latents(images) > 0, 1.0, -1.0)
    assert torch.equal(model.quantizer.lookup(model.encode(images), layout), signs)


def test_a_decoder_of_noise_is_refused(tmp_path):
    state = load_file(GOLDEN / "bitdance_ae.safetensors")
    state["decoder.conv_in.weight"] = state["decoder.conv_in.weight"].repeat(1, 2, 1, 1)
    save_file(state, tmp_path / "gan.safetensors")
    with pytest.raises(UserError, match=r"reads 24 channels, but codes have 12 bits.*gan_decoder"):
        load(tmp_path / "gan.safetensors")
