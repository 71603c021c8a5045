"""Published formats against what their projects compute: `tests/golden/*.npz`, from those projects' own code.

The checkpoints have random weights in the exact formats of their projects. `taming_vqgan`, `taming_gumbelvq`
and `ldm_vq_noattn` are their tensors without `loss.*`; the others are whole.
"""

import argparse
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file

import genstack
import genstack.checkpoints.formats
from genstack.checkpoints import model_file
from genstack.checkpoints.foreign import read
from genstack.checkpoints.formats.format import Format, Weights
from genstack.checkpoints.formats.llamagen import LlamaGenPrior, LlamaGenTextPrior, backbone_of
from genstack.checkpoints.import_options import ImportOptions
from genstack.checkpoints.published import formats, load, recognise
from genstack.cli.main import main
from genstack.compressor import Autoencoder, Convolutional, Strided
from genstack.compressor.gaussian import Gaussian
from genstack.compressor.quantizers import VectorQuantizer
from genstack.conditions import Unconditional
from genstack.data.images import Preprocessing
from genstack.discovery import discover
from genstack.errors import UserError
from genstack.inputs import ConditionInputs
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import Autoregressive, Known, SamplingOptions, image_seeds
from genstack.transformer import Backbone

GOLDEN = Path(__file__).parents[1] / "golden"
CLOSE = {"atol": 5e-5, "rtol": 1e-4}
GREEDY = SamplingOptions(temperature=0.0)


def golden(name):
    """The arrays of a file, as tensors."""
    return {key: torch.from_numpy(array) for key, array in np.load(GOLDEN / f"{name}.npz").items()}


def test_formats_are_discovered():
    assert formats() == discover(genstack.checkpoints.formats, Format)


def test_bug_of_a_format_is_not_only_reported_as_damage(monkeypatch):
    def faulty(*_):
        raise KeyError("a fault")

    path = GOLDEN / "taming_vqgan.safetensors"
    monkeypatch.setattr(type(recognise(read(path).names())[0]), "read", faulty)
    with pytest.raises(UserError, match=r"KeyError 'a fault'.*is a bug of genstack") as error:
        load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "options", "prefix"),
    [
        ("taming_vqgan.safetensors", {}, ""),
        ("taming_gumbelvq.safetensors", {}, ""),
        ("ldm_vq.ckpt", {}, ""),
        ("ldm_vq.ckpt", {"ema": True}, "ema_"),
        ("ldm_vq_noattn.safetensors", {}, ""),
        ("llamagen_vq.pt", {}, ""),
        ("open_magvit2.ckpt", {}, ""),
        ("diffusers_vqmodel", {}, ""),
        ("diffusers_vqmodel_lookup", {}, ""),
        ("diffusers_vqmodel_old", {}, ""),
        ("janus_vq", {}, ""),
    ],
)
@torch.no_grad()
def test_compressors_agree_with_their_projects(file, options, prefix):
    model = load(GOLDEN / file, ImportOptions(**options)).compressor
    expected = golden(Path(file).stem)
    images, codes = expected["images"], expected[prefix + "codes"].flatten(1)
    layout = model.layout(*images.shape[-2:])
    assert torch.equal(model.encode(images), codes)
    for computed, name in (
        (model.latents(images), "latents_before_quantization"),
        (model(images).images, "reconstruction"),
        (model.decode(codes, layout), "decoded_from_codes"),
        (model.decode(expected["random_codes"].flatten(1), layout), "decoded_from_random_codes"),
    ):
        torch.testing.assert_close(computed, expected[prefix + name], **CLOSE)


@torch.no_grad()
def test_multiple_scales_agree_with_var():
    """Images of another shape too: its scales follow from those of square ones."""
    model = load(GOLDEN / "var_vqvae.pth", ImportOptions(scales="1,2,3,4,6,8"))
    assert (model.preprocessing.height, model.preprocessing.width) == (32, 32)
    made, expected = model.compressor, golden("var_vqvae")
    images, codes, layout = expected["images"], expected["codes"], model.layout
    assert torch.equal(made.encode(images), codes)
    for computed, name in (
        (made.latents(images), "latents_before_quantization"),
        (made(images).images, "reconstruction_unclamped"),
        (made.decode(codes, layout).clamp(-1, 1), "decoded_from_codes"),
        (made.decode(expected["random_codes"], layout).clamp(-1, 1), "decoded_from_random_codes"),
    ):
        torch.testing.assert_close(computed, expected[name], **CLOSE)


@torch.no_grad()
def test_open_magvit2_without_ema_weights(tmp_path):
    state = read(GOLDEN / "open_magvit2.ckpt").tensors()
    raw = {name: value for name, value in state.items() if not name.startswith("model_ema.")}
    torch.save({"state_dict": raw}, tmp_path / "raw.ckpt")
    model, images = load(tmp_path / "raw.ckpt").compressor, golden("open_magvit2")["images"]
    averaged = load(GOLDEN / "open_magvit2.ckpt").compressor
    assert torch.equal(model.encoder.first.weight, raw["encoder.conv_in.weight"])
    assert not torch.equal(model.encode(images), averaged.encode(images))


@torch.no_grad()
def test_codes_of_ibq_are_the_largest_products():
    """Its file has the tensors of a VQGAN: the same latents, another rule."""
    file, images = GOLDEN / "taming_vqgan.safetensors", golden("taming_vqgan")["images"]
    model = load(file, ImportOptions(ibq=True)).compressor
    rows = load_file(file)["quantize.embedding.weight"]
    products = torch.einsum("b d h w, k d -> b k h w", model.latents(images), rows)
    assert torch.equal(model.encode(images), products.argmax(1).flatten(1))
    assert not torch.equal(model.encode(images), load(file).compressor.encode(images))


@pytest.mark.parametrize("name", ["var_transformer", "var_transformer_shared_aln"])
@torch.no_grad()
def test_transformers_of_var_compute_the_same(name, tmp_path):
    """The tokenizer is read with other scales: the transformer says which it was trained on."""
    model_file.save(load(GOLDEN / "var_vqvae.pth", ImportOptions(scales="1,2,3,4,5,8")), tmp_path)
    options = ImportOptions(compressor=str(tmp_path))
    model, expected = load(GOLDEN / f"{name}.safetensors", options), golden(name)
    assert model.compressor.quantizer.scales == (1, 2, 3, 4, 6, 8)
    assert (model.preprocessing.height, len(model.classes)) == (32, 10)
    condition = expected["condition"]
    null = model.prior.condition.null(condition)
    for values, logits in ((condition, "logits"), (null, "logits_null")):
        found = model.prior.logits(expected["codes"], values)
        torch.testing.assert_close(found, expected[logits], **CLOSE)
    for strength in ("0", "1.5", "4"):
        options = SamplingOptions(temperature=0.0, guidance=1 + float(strength), guidance_schedule="linear")
        codes = model.prior.sample(condition, options, image_seeds(0, range(2)))
        assert torch.equal(codes, expected[f"greedy_codes_cfg{strength}"])


@torch.no_grad()
def test_halves_of_dall_e_can_be_state_dicts(tmp_path):
    for half in ("encoder", "decoder"):
        tensors = read(GOLDEN / "openai_dvae" / f"{half}.pkl").tensors()
        torch.save(tensors, tmp_path / f"{half}.pt")
    expected = golden("openai_dvae")
    codes = genstack.load(tmp_path).compressor.encode(expected["images"] * 2 - 1)
    assert torch.equal(codes, expected["codes"].flatten(1))


def test_old_files_of_vq_vae_2_are_read():
    model = load(GOLDEN / "hostile" / "tiny_complete.pt")
    assert model.layout.grids == ((32, 32), (64, 64))


def in_latent_diffusion(name, top):
    """The name in latent-diffusion of one of our tensors."""
    for theirs, ours in {
        r"coder.conv_in": r"coder\.first",
        r"coder.conv_out": r"coder\.last",
        r"coder.norm_out": r"coder\.norm",
        r"mid.block_1": r"middle\.before",
        r"mid.attn_1": r"middle\.attention",
        r"mid.block_2": r"middle\.after",
        r"encoder.down.\1.block": r"encoder\.levels\.(\d)\.blocks",
        r"encoder.down.\1.downsample": r"encoder\.downsamples\.(\d)",
        r".nin_shortcut": r"\.shortcut",
        r".q.": r"\.query\.",
        r".k.": r"\.key\.",
        r".v.": r"\.value\.",
        r".proj_out": r"\.out(?=\.)",
        "post_quant_conv": "^from_quantizer",
        "quant_conv": "^to_quantizer",
    }.items():
        name = re.sub(ours, theirs, name)
    turned = {r"levels\.(\d)\.blocks": "up.{}.block", r"upsamples\.(\d)": "up.{}.upsample"}
    for ours, theirs in turned.items():
        name = re.sub(ours, lambda level, theirs=theirs: theirs.format(top - int(level[1])), name)
    return name


@torch.no_grad()
def test_kl_autoencoders_agree_with_diffusers(tmp_path):
    """As a folder of diffusers, and as a file of latent-diffusion with the same weights."""
    from diffusers import AutoencoderKL

    theirs = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=3,
        norm_num_groups=4,
    ).eval()
    for parameter in theirs.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))  # so that no zero or one hides a mistake
    theirs.save_pretrained(tmp_path / "folder")
    images = torch.rand(2, 3, 12, 20) * 2 - 1
    posterior = theirs.encode(images).latent_dist
    ours = load(tmp_path / "folder", ImportOptions(resolution="12,20"))
    mean, log_variance = ours.compressor.latents(images).chunk(2, dim=1)
    torch.testing.assert_close(mean, posterior.mean, **CLOSE)
    torch.testing.assert_close(log_variance.clamp(-30, 20), posterior.logvar, **CLOSE)
    torch.testing.assert_close(ours.compressor(images).images, theirs.decode(posterior.mean).sample, **CLOSE)
    model_file.save(ours, tmp_path / "run")
    assert torch.equal(model_file.load(tmp_path / "run").reconstruct(images), ours.reconstruct(images))
    torch.testing.assert_close(ours.compressor.encode(images), posterior.mean, **CLOSE)
    torch.testing.assert_close(ours.compressor.posterior(images)[:, 1], posterior.std, **CLOSE)
    assert ours.compressor.standardization == pytest.approx((0.0, 1 / theirs.config.scaling_factor))


@pytest.mark.parametrize("name", ["diffusers_kl_flux", "diffusers_kl_sd"])
@torch.no_grad()
def test_kl_autoencoders_of_diffusers(name):
    model, expected = load(GOLDEN / name).compressor, golden(name)
    mean, log_variance = model.latents(expected["images"]).chunk(2, dim=1)
    torch.testing.assert_close(mean, expected["mean"], **CLOSE)
    torch.testing.assert_close(log_variance.clamp(-30, 20), expected["logvar"], **CLOSE)
    torch.testing.assert_close(model.posterior(expected["images"])[:, 1], expected["std"], **CLOSE)
    torch.testing.assert_close(model(expected["images"]).images, expected["decoded_from_mean"], **CLOSE)
    shift, deviation = model.standardization
    scaled = expected["random_scaled_latents"]
    torch.testing.assert_close((mean - shift) / deviation, expected["scaled_latents_from_mean"], **CLOSE)
    decoded = model.images(scaled * deviation + shift, tuple(expected["images"].shape[-2:]))
    torch.testing.assert_close(decoded, expected["decoded_from_random_scaled_latents"], **CLOSE)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [({}, (0.0, 1 / 0.18215)), ({"scaling_factor": None}, None), ({"scaling_factor": 1.0}, None)],
)
def test_default_scale_of_latents_is_that_of_diffusers(stated, expected, tmp_path):
    """Of a file without config.json, and where the configuration states nothing, priors measure it."""
    config = json.loads((GOLDEN / "diffusers_kl_sd" / "config.json").read_text())
    assert "scaling_factor" not in config
    (tmp_path / "config.json").write_text(json.dumps(config | stated))
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    file.symlink_to(GOLDEN / "diffusers_kl_sd" / file.name)
    found = load(tmp_path).compressor.standardization
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("projection", [0, 1])  # FLUX has no convolutions around the latents
def test_latent_diffusions_kl_has_tamings_names(tmp_path, projection):
    trunk = Convolutional(dim=3, width=32, multipliers=(1, 2), blocks=1, attention=(), double=True)
    made = Autoencoder(3, trunk, Gaussian(3), projection=projection).eval()
    state = {in_latent_diffusion(name, 1): value for name, value in made.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "kl.ckpt")
    again = load(tmp_path / "kl.ckpt").compressor
    assert again.network == trunk
    images = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        assert torch.equal(again(images).images, made(images).images)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("taming_net2net_class", {"heads": 4, "classes": 10}),
        ("taming_net2net_uncond", {"heads": 2, "classes": 0, "resolution": "16,16"}),
    ],
)
@torch.no_grad()
def test_tamings_transformers(name, options):
    model, expected = load(GOLDEN / f"{name}.ckpt", ImportOptions(**options)), golden(name)
    codes, greedy = expected["codes"].flatten(1), expected["greedy_codes"].flatten(1)
    condition = expected["condition"].flatten()
    assert model.prior.layout == model.layout
    if "images" in expected:
        assert torch.equal(model.compressor.encode(expected["images"]), codes)
    logits = model.prior.logits(codes, condition)
    torch.testing.assert_close(logits, expected["logits"][..., : logits.shape[-1]], **CLOSE)
    seeds = image_seeds(0, range(len(codes)))
    drawn = model.prior.sample(condition, GREEDY, seeds)
    assert torch.equal(drawn, greedy)
    images = model.compressor.decode(drawn, model.layout)
    torch.testing.assert_close(images, expected["decoded_from_greedy_codes"], **CLOSE)


@pytest.mark.slow
@torch.no_grad()
def test_tamings_transformer_of_another_image(tmp_path):
    """From the file, and from a run that was made of it: the condition's compressor lies within."""
    published, expected = (
        load(GOLDEN / "taming_net2net_depth.ckpt", ImportOptions(heads=4)),
        golden("taming_net2net_depth"),
    )
    model_file.save(published, tmp_path / "run")
    codes, images = expected["codes"].flatten(1), expected["condition_images"]
    inputs = ConditionInputs(torch.zeros(2, dtype=torch.int64), images=images)
    for model in (published, model_file.load(tmp_path / "run")):
        assert (model.preprocessing.height, model.prior.condition.table) == (16, "shared")
        assert torch.equal(model.compressor.encode(expected["images"]), codes)
        condition = model.condition.encode(inputs)
        assert torch.equal(condition, expected["condition"])
        torch.testing.assert_close(model.prior.logits(codes, condition), expected["logits"], **CLOSE)
        seeds = image_seeds(0, range(2))
        drawn = model.prior.sample(condition, GREEDY, seeds)
        assert torch.equal(drawn, expected["greedy_codes"].flatten(1))
        half = torch.arange(64).expand(2, 64) < 32
        drawn = model.prior.sample(condition, GREEDY, seeds, Known(codes, half))
        assert torch.equal(drawn, expected["greedy_codes_from_first_half"].flatten(1))
        decoded = model.sample(inputs, GREEDY, 0, range(2))
        greedy = expected["decoded_from_greedy_codes"].clamp(-1, 1)
        torch.testing.assert_close(decoded, greedy, **CLOSE)


def llamagen(file, side, heads, kind=LlamaGenPrior):
    """The transformer of a file, for codes on a square."""
    weights = Weights(read(GOLDEN / file).tensors(), {})
    layout = CodeLayout((16 * side, 16 * side), weights.shape("tok_embeddings.weight")[0], ((side, side),))
    prior = kind().prior(weights, layout, heads)
    assert not weights.unused(())
    return prior


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "side", "heads"), [("llamagen_gpt_c2i.pt", 8, 4), ("llamagen_gpt_c2i_consolidated.pth", 6, 2)]
)
@torch.no_grad()
def test_llamagens_transformers(file, side, heads):
    prior, expected = llamagen(file, side, heads), golden(Path(file).stem)
    codes, labels = expected["codes"].flatten(1), expected["condition"]
    torch.testing.assert_close(prior.logits(codes, labels), expected["logits"], **CLOSE)
    null = prior.logits(codes, prior.condition.null(labels))
    torch.testing.assert_close(null, expected["logits_null"], **CLOSE)
    check_greedy(prior, labels, expected)


@torch.no_grad()
def test_llamagens_transformers_whose_heads_share_keys(tmp_path):
    """Two heads of keys for four of queries: as if each were there twice."""
    state = read(GOLDEN / "llamagen_gpt_c2i.pt").tensors()
    made = []
    for copies in (1, 2):
        changed = dict(state)
        for name in (name for name in state if name.endswith("wqkv.weight")):
            queries, *others = rearrange(
                state[name], "(kind head row) ... -> kind head row ...", kind=3, head=4
            )
            parts = [queries, *(each[:2].repeat_interleave(copies, dim=0) for each in others)]
            changed[name] = torch.cat([part.flatten(0, 1) for part in parts])
        file = tmp_path / f"{copies}.safetensors"
        save_file(changed, file)
        made.append(llamagen(file, 8, 4).eval())
    assert [prior.backbone.kv_heads for prior in made] == [2, None]
    codes, labels = (golden("llamagen_gpt_c2i")[name] for name in ("codes", "condition"))
    torch.testing.assert_close(*(prior.logits(codes.flatten(1), labels) for prior in made))


def check_greedy(prior, values, expected):
    """Greedy codes, with and without guidance, are those expected."""
    for name in (name for name in expected if name.startswith("greedy_codes")):
        guidance = float(re.search(r"cfg([\d.]+)", name)[1]) if "cfg" in name else 1.0
        last = (
            (int(name.partition("interval")[2]) + 1) / (prior.layout.length - 1)
            if "interval" in name
            else 1.0
        )
        options = SamplingOptions(temperature=0.0, guidance=guidance, guidance_interval=(0.0, last))
        drawn = prior.sample(values, options, image_seeds(0, range(len(values))))
        assert torch.equal(drawn, expected[name].flatten(1)), name


@pytest.mark.slow
@torch.no_grad()
def test_llamagens_transformer_of_captions():
    """Padded on the left, hidden keys with the diagonal kept, no row rotated; null is under the same mask."""
    prior, expected = (
        llamagen("llamagen_gpt_t2i.pt", 6, 2, LlamaGenTextPrior),
        golden("llamagen_gpt_t2i"),
    )
    codes, shown = expected["codes"].flatten(1), expected["condition_mask"].float()[..., None]
    values = torch.cat([shown, shown, expected["condition"]], dim=2)
    torch.testing.assert_close(prior.logits(codes, values), expected["logits"], **CLOSE)
    null = prior.logits(codes, prior.condition.null(values))
    torch.testing.assert_close(null, expected["logits_null"], **CLOSE)
    assert {name for name in expected if name.startswith("greedy")} == {"greedy_codes", "greedy_codes_cfg7.5"}
    check_greedy(prior, values, expected)


def test_a_transformer_of_llamagen_with_its_tokenizer_is_a_run(tmp_path, capsys):
    """Tokenizer and transformer come in two files; the golden ones have other codebooks."""
    trunk = Convolutional(dim=8, width=8, multipliers=(1, 1), blocks=1, attention=(1,))
    compressor = Autoencoder(3, trunk, VectorQuantizer(160, 4)).eval()
    model_file.save(Model(compressor, Preprocessing(3, 32, 32)), tmp_path / "tokenizer")
    file, run = str(GOLDEN / "llamagen_gpt_c2i.pt"), tmp_path / "run"
    flags = ["--heads", "4", "--compressor", str(tmp_path / "tokenizer"), "--resolution", "16"]
    assert not main(["import", file, *flags, "--out", str(run)])
    model = model_file.load(run)
    assert model.layout == CodeLayout((16, 16), 160, ((8, 8),))
    assert model.classes[:3] == ("0", "1", "2") and len(model.classes) == 10
    expected = golden("llamagen_gpt_c2i")
    logits = model.prior.logits(expected["codes"].flatten(1), expected["condition"])
    torch.testing.assert_close(logits, expected["logits"], **CLOSE)
    assert f"genstack sample {run}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("width", "depth", "heads", "hidden"),
    [(768, 12, 12, 2048), (1024, 24, 16, 2816), (3200, 24, 32, 8704), (48, 1, 2, 256), (64, 1, 4, 256)],
)
def test_hidden_widths_of_llamagen(width, depth, heads, hidden):
    """Two thirds of four widths, rounded up to a multiple of 256."""
    made = backbone_of(width, depth, heads, hidden)
    assert made.mlp_width == hidden
    if width >= 256:
        assert made == Backbone(
            width, depth, heads, positions="rotary", qk_norm=False, unplaced="zero", tied=False
        )


def test_averaged_weights_of_a_training_file(tmp_path):
    state = read(GOLDEN / "llamagen_vq.pt").tensors()
    other = {name: value * 2 if value.is_floating_point() else value for name, value in state.items()}
    path = tmp_path / "training.pt"
    torch.save({"model": other, "ema": state, "steps": 7, "args": argparse.Namespace(lr=1e-4)}, path)
    expected = golden("llamagen_vq")
    with torch.no_grad():
        assert torch.equal(
            load(path, ImportOptions(ema=True)).compressor.encode(expected["images"]),
            expected["codes"].flatten(1),
        )
        assert not torch.equal(load(path).compressor.encode(expected["images"]), expected["codes"].flatten(1))


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("taming_vqgan.safetensors", {"heads": 3}, "--heads does not apply to a VQGAN"),
        ("ldm_vq_noattn.safetensors", {"ema": True}, "no EMA weights"),
        ("llamagen_vq.pt", {"ema": True}, "no EMA weights"),
        ("taming_vqgan.safetensors", {"resolution": "50,64"}, "use 48x64"),
        ("taming_net2net_class.ckpt", {"heads": 4}, "give --classes N"),
        ("taming_net2net_class.ckpt", {"classes": 10}, "give it by --heads"),
        ("taming_net2net_class.ckpt", {"classes": 10, "heads": 5}, "not a multiple of 5"),
        ("taming_net2net_class.ckpt", {"classes": 97, "heads": 4}, "97 labels do not fit"),
        ("taming_net2net_class.ckpt", {"classes": 9, "heads": 4, "resolution": "64,64"}, "1024 codes"),
        ("taming_net2net_uncond.ckpt", {"classes": 0, "heads": 2}, "80 positions.*--resolution"),
        ("taming_net2net_depth.ckpt", {}, "give it by --heads"),
        (
            "taming_net2net_depth.ckpt",
            {"heads": 4, "classes": 10},
            "--classes does not apply to a transformer",
        ),
        (
            "taming_net2net_depth.ckpt",
            {"heads": 4, "resolution": "20,20"},
            "200 codes of 64 and 48 do not fit",
        ),
        ("llamagen_gpt_c2i.pt", {"heads": 4}, "does not hold its tokenizer"),
        ("llamagen_gpt_t2i.pt", {"heads": 2}, "does not hold its tokenizer"),
        ("rar.bin", {"compressor": str(GOLDEN / "rar.bin")}, "rar.bin is a prior, not a compressor"),
        ("var_transformer.safetensors", {}, "does not hold its tokenizer"),
        ("var_vqvae.pth", {}, "6 scales.*--scales"),
        ("var_vqvae.pth", {"scales": "1,2,3"}, "6 scales.*--scales"),
        ("rosinality_vqvae2.safetensors", {"scales": "1,2"}, "--scales does not apply to a VQ-VAE-2"),
        ("hostile/tiny_missing_key.pt", {}, "dec.blocks.0.weight not found"),
        ("hostile/tiny_extra_key.pt", {}, "unexpected tensors: an.unknown.key"),
        ("hostile/tiny_wrong_shape.pt", {}, r"quantize_t.embed has shape \(15, .*expected \(16, "),
        ("hostile/tiny_nan.pt", {}, "dec.blocks.0.bias has numbers that are not finite"),
    ],
)
def test_missing_options_are_reported(file, options, message):
    with pytest.raises(UserError, match=message) as error:
        load(GOLDEN / file, ImportOptions(**options))
    assert Path(file).name in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"encoder\.mid\.block_2\.conv1\.weight not found"),
        ("bias", r"missing tensors: encoder\.middle\.after\.conv1\.bias"),
        ("extra", r"unexpected tensors: encoder\.more"),
        (
            "shape",
            r"encoder\.mid\.block_2\.conv1\.weight has shape \(32, 64, 3, 3\).* expected \(64, 64, 3, 3\)",
        ),
        ("axes", r"encoder\.conv_in\.weight must have 4 axes, got shape"),
        ("nan", r"encoder\.mid\.block_2\.conv1\.weight has numbers that are not finite"),
        ("int8", r"encoder\.mid\.block_2\.conv1\.weight has int8 numbers; quantized weights are not"),
        ("mark", r"looks like a VQGAN.* has no quant_conv\.weight"),
        ("blocks", r"the same number of blocks, got \[1, 2\]"),
    ],
)
def test_errors_name_unexpected_and_missing_tensors(tmp_path, change, message):
    state = load_file(GOLDEN / "taming_vqgan.safetensors")
    name = "encoder.mid.block_2.conv1.weight"
    if change == "missing":
        del state[name]
    if change == "bias":
        del state["encoder.mid.block_2.conv1.bias"]
    if change == "extra":
        state["encoder.more"] = torch.ones(1)
    if change == "shape":
        state[name] = state[name][:32].clone()
    if change == "axes":
        state["encoder.conv_in.weight"] = state["encoder.conv_in.weight"].flatten(1)
    if change == "nan":
        state[name][3] = torch.nan
    if change == "int8":
        state[name] = state[name].to(torch.int8)
    if change == "mark":
        del state["quant_conv.weight"]
    if change == "blocks":
        state["encoder.down.1.block.1.conv1.weight"] = torch.ones(32, 32, 3, 3)
    save_file(state, tmp_path / "changed.safetensors")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "changed.safetensors")


WRAPPED = {
    "compiled.safetensors": "_orig_mod.",
    "distributed.pt": "module._orig_mod.",
    "lightning.ckpt": "model.",
    "compiled inside lightning.ckpt": "model._orig_mod.",
    "latent diffusion.ckpt": "first_stage_model.",
    "any.safetensors": "tokenizer.vq.",
}


@pytest.mark.parametrize(("name", "prefix"), WRAPPED.items())
def test_wrapped_weights_are_found(tmp_path, name, prefix):
    """Beside tensors of the model around them, which are left where they lie."""
    state = load_file(GOLDEN / "taming_vqgan.safetensors")
    wrapped = {prefix + key: value for key, value in state.items()}
    inside = prefix.replace("_orig_mod.", "").replace("module.", "")
    if inside:
        wrapped["diffusion.out.weight"] = torch.ones(3)
    if name.endswith("safetensors"):
        save_file(wrapped, tmp_path / name)
    else:
        torch.save({"state_dict": wrapped}, tmp_path / name)
    model, expected = load(tmp_path / name), golden("taming_vqgan")
    assert torch.equal(model.compressor.encode(expected["images"]), expected["codes"].flatten(1))
    assert model.metadata.get("part", "") == inside.rstrip(".")


def test_several_models_in_a_file_are_refused(tmp_path):
    state = load_file(GOLDEN / "taming_vqgan.safetensors")
    both = {f"{part}.{key}": value.clone() for part in ("a", "b") for key, value in state.items()}
    save_file(both, tmp_path / "both.safetensors")
    with pytest.raises(UserError, match=r"several models \(a\., b\.\)"):
        load(tmp_path / "both.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_become_float32(tmp_path, dtype):
    state = load_file(GOLDEN / "taming_vqgan.safetensors")
    save_file({key: value.to(dtype) for key, value in state.items()}, tmp_path / "other.safetensors")
    made = load(tmp_path / "other.safetensors").compressor
    assert torch.equal(made.quantizer.codebook.weight, state["quantize.embedding.weight"].to(dtype).float())


@pytest.fixture
def diffusers_folder(tmp_path):
    """A function that writes the golden VQModel as files of these names, each with a share of its tensors."""
    source = GOLDEN / "diffusers_vqmodel"
    state = load_file(source / "diffusion_pytorch_model.safetensors")

    def write(folder, *names):
        place = tmp_path / folder
        place.mkdir(parents=True)
        (place / "config.json").write_bytes((source / "config.json").read_bytes())
        index = {}
        for number, name in enumerate(names):
            part = {key: state[key] for key in sorted(state)[number :: len(names)]}
            index |= dict.fromkeys(part, name)
            if name.endswith(".bin"):
                torch.save(part, place / name)
            else:
                save_file(part, place / name)
        return place, index

    return write


def same_codes(place):
    expected = golden("diffusers_vqmodel")
    codes = genstack.load(place).compressor.encode(expected["images"])
    return torch.equal(codes, expected["codes"].flatten(1))


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin"])
def test_variants_of_diffusers_are_read(diffusers_folder, name):
    assert same_codes(diffusers_folder("model", name)[0])


def test_the_compressor_of_a_pipeline_is_read(diffusers_folder, tmp_path):
    place, _ = diffusers_folder("pipeline/vqvae", "diffusion_pytorch_model.safetensors")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    assert same_codes(tmp_path / "pipeline")
    shutil.copytree(place, tmp_path / "pipeline" / "vae")
    with pytest.raises(UserError, match=r"several models; give one of .*pipeline/v.*, .*pipeline/v"):
        read(tmp_path / "pipeline")
    assert same_codes(place)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_sharded_weights_are_read(diffusers_folder, kind):
    names = [f"diffusion_pytorch_model-0000{number}-of-00002.{kind}" for number in (1, 2)]
    place, shards = diffusers_folder("model", *names)
    index = place / f"diffusion_pytorch_model.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    assert same_codes(place)
    for changed, message in (
        (shards | {"encoder.more": names[0]}, "no shard holds encoder.more"),
        (shards | {"encoder.more": "../other.safetensors"}, "a shard that is not in its folder"),
        ({}, "not an index of shards"),
    ):
        index.write_text(json.dumps({"weight_map": changed}))
        with pytest.raises(UserError, match=message):
            genstack.load(place)


def test_only_the_shard_of_the_compressor_is_opened(tmp_path):
    """A model of text and images, whose other shard is damaged."""
    state = load_file(GOLDEN / "taming_vqgan.safetensors")
    wrapped = {f"vision.{key}": value for key, value in state.items()}
    save_file(wrapped, tmp_path / "model-00002-of-00002.safetensors")
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"damaged")
    shards = dict.fromkeys(wrapped, "model-00002-of-00002.safetensors")
    shards |= {"language.weight": "model-00001-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert genstack.load(tmp_path).metadata["part"] == "vision"


@pytest.mark.parametrize("shards", [1, 2])
@torch.no_grad()
def test_pickles_of_janus_are_read(shards, tmp_path):
    """As Janus-Pro is published: one pickle, or shards with an index."""
    folder, index = GOLDEN / "janus_vq", {}
    files = [load_file(file) for file in sorted(folder.glob("*.safetensors"))]
    state = {name: value for file in files for name, value in file.items()}
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    for number in range(shards):
        name = "pytorch_model.bin" if shards == 1 else f"pytorch_model-0000{number + 1}-of-00002.bin"
        part = {key: state[key] for key in sorted(state)[number::shards]}
        torch.save(part, tmp_path / name)
        index |= dict.fromkeys(part, name)
    if shards > 1:
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    model, expected = load(tmp_path), golden("janus_vq")
    assert model.metadata["part"] == "gen_vision_model"
    assert torch.equal(model.compressor.encode(expected["images"]), expected["codes"].flatten(1))


def test_import_makes_a_run_that_computes_the_same(tmp_path, capsys):
    run = tmp_path / "run"
    assert not main(["import", str(GOLDEN / "ldm_vq.ckpt"), "--ema", "--resolution", "20", "--out", str(run)])
    assert "images 20x20" in capsys.readouterr().out
    model, expected = model_file.load(run), golden("ldm_vq")
    assert torch.equal(model.compressor.encode(expected["images"]), expected["ema_codes"].flatten(1))
    assert model.metadata["published"] == "VQGAN of taming-transformers, latent-diffusion or SEED-Voken (IBQ)"
    assert main(["import", str(GOLDEN / "ldm_vq.ckpt"), "--out", str(run)]) == 2
    assert "already holds a model" in capsys.readouterr().err


@pytest.mark.slow
def test_published_file_is_accepted_in_place_of_a_run(tmp_path, capsys):
    for place in (GOLDEN / "taming_vqgan.safetensors", GOLDEN / "diffusers_vqmodel"):
        assert genstack.load(place).prior is None
    out = str(tmp_path / "pairs.png")
    words = ["--source", "shapes", "--size", "32x32", "--count", "2", "--out", out]
    assert not main(["reconstruct", str(GOLDEN / "ldm_vq.ckpt"), *words])
    assert "PSNR" in capsys.readouterr().out
    assert main(["reconstruct", str(GOLDEN / "ldm_vq.ckpt")]) == 2
    assert "add --source" in capsys.readouterr().err


def test_models_of_another_kind_are_unknown():
    """A name in common, as here of the head, is no likeness."""
    with pytest.raises(UserError, match=r"unknown format .*its tensors are lm_head\.weight"):
        recognise({"lm_head.weight", "transformer.wte.weight", "transformer.wpe.weight"})


def test_the_list_names_every_format(capsys):
    assert not main(["import", "--list"])
    listed = capsys.readouterr().out
    page = (GOLDEN.parents[1] / "docs" / "published_weights.md").read_text(encoding="utf-8")
    for kind in formats().values():
        known = kind.provenance
        assert known is not None
        row = [kind.what, known.files, known.source, known.licence, known.weights, known.checked]
        assert all(each.strip() == each != "" and each in listed for each in row)
        assert f"| {' | '.join(row)} |" in page, "docs/published_weights.md has a row for each"
    assert main(["import"]) == 2
    assert main(["import", "x.ckpt", "--out", "run", "--resolution", "big"]) == 2
    assert "invalid resolution 'big'" in capsys.readouterr().err


@pytest.mark.slow
def test_training_starts_from_published_weights(tmp_path, capsys):
    """Without a step that moves anything, the run's model computes what the file's does."""
    file = str(GOLDEN / "taming_vqgan.safetensors")
    start = ["train", "compressor", "--init", file, "--data.source", "shapes:30", "--data.resolution", "16"]
    short = [
        "--data.batch_size",
        "2",
        "--trainer.max_steps",
        "1",
        "--model.optimization.learning_rate",
        "1e-12",
    ]
    assert not main([*start, *short, "--runs", str(tmp_path), "--name", "tuned"])
    expected = golden("taming_vqgan")
    tuned = model_file.load(tmp_path / "tuned").compressor
    assert torch.equal(tuned.encode(expected["images"]), expected["codes"].flatten(1))
    capsys.readouterr()
    wider = ["--model.compressor.network.width", "64"]
    assert main([*start, *short, *wider, "--runs", str(tmp_path), "--name", "wider"]) == 2
    assert "do not fit this Autoencoder" in capsys.readouterr().err


@pytest.mark.slow
def test_prior_starts_from_weights_of_another(tmp_path, capsys):
    """Without a step that moves anything, the new run's prior computes what the old one's does."""
    compressor = Autoencoder(3, Strided(8, 4, 1, 4), VectorQuantizer(16, 4)).eval()
    backbone = Backbone(16, 1, 2, qk_norm=False)
    prior = Autoregressive(compressor.layout(16, 16), Unconditional(), backbone).eval()
    run, runs = tmp_path / "old", str(tmp_path)
    model_file.save(Model(compressor, Preprocessing(3, 16, 16), prior=prior), run)
    start = ["train", "prior", "--compressor", str(run), "--init", str(run), "--runs", runs]
    data = ["--data.source", "shapes:30", "--data.resolution", "16", "--data.batch_size", "2"]
    short = ["--trainer.max_steps", "1", "--model.optimization.learning_rate", "1e-12"]
    assert not main([*start, *data, *short, "--name", "new"])
    again = model_file.load(tmp_path / "new").prior
    assert again.backbone == backbone and isinstance(again.condition, Unconditional)
    torch.testing.assert_close(again.head.weight, prior.head.weight.detach())
    assert "codes of another compressor" not in capsys.readouterr().err
    with torch.no_grad():
        compressor.quantizer.codebook.rows[0] += 1
    model_file.save(Model(compressor, Preprocessing(3, 16, 16)), tmp_path / "other")
    other = ["train", "prior", "--compressor", str(tmp_path / "other"), *start[4:]]
    assert not main([*other, *data, *short, "--name", "moved"])
    told = [line for line in capsys.readouterr().err.splitlines() if "codes of another compressor" in line]
    assert len(told) == 1 and str(run) in told[0]
    assert main([*start, *data, *short, "--name", "wider", "--model.prior.backbone.width", "32"]) == 2
    assert "do not fit this Autoregressive" in capsys.readouterr().err


@pytest.mark.slow
def test_captions_of_llamagen_are_read_by_the_text_encoder_that_is_named(tmp_path, capsys, text_encoder):
    """One with other states is refused; the golden file's have 40 channels."""
    model_file.save(
        Model(Autoencoder(3, Strided(8, 4, 1, 8), VectorQuantizer(128, 4)).eval(), Preprocessing(3, 24, 24)),
        tmp_path / "tokenizer",
    )
    given = ["import", str(GOLDEN / "llamagen_gpt_t2i.pt"), "--heads", "2"]
    given += ["--compressor", str(tmp_path / "tokenizer")]
    assert main([*given, "--text-encoder", str(text_encoder), "--out", str(tmp_path / "other")]) == 2
    assert "states of 40 channels" in capsys.readouterr().err
    assert not main([*given, "--out", str(tmp_path / "run")])
    sample = ["sample", str(tmp_path / "run"), "--count", "1", "--out"]
    assert not main([*sample, str(tmp_path / "without")])
    assert main([*sample, str(tmp_path / "with"), "--caption", "a red circle"]) == 2
    assert "GENSTACK_TEXT_ENCODER" in capsys.readouterr().err
