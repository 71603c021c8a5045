"""Models of 1d-tokenizer, and Halton-MaskGIT, against what their own code computes (`tests/golden`)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import genstack
from genstack.checkpoints import model_file
from genstack.checkpoints.foreign import read
from genstack.checkpoints.formats import halton, rar, titok_generator
from genstack.checkpoints.formats.format import Weights
from genstack.checkpoints.formats.rar import sampling_options, transformer
from genstack.checkpoints.import_options import ImportOptions
from genstack.checkpoints.published import load
from genstack.cli.main import main
from genstack.compressor import Autoencoder, MaskGITNetwork, TiTok
from genstack.compressor.networks.patch_pixels import SmoothedPatches, SoftCodes
from genstack.compressor.quantizers import VectorQuantizer
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.inputs import ConditionInputs
from genstack.layout import CodeLayout
from genstack.model import Model
from genstack.prior import SamplingOptions, image_seeds
from genstack.prior.order import Confidence

GOLDEN = Path(__file__).parents[1] / "golden"
CLOSE = {"atol": 5e-5, "rtol": 1e-4}


def golden(name):
    """The arrays of a file, as tensors."""
    return {key: torch.from_numpy(array) for key, array in np.load(GOLDEN / f"{name}.npz").items()}


def unit(images):
    """Images in [0, 1]."""
    return (images + 1) / 2


@pytest.mark.parametrize("file", ["titok_stage2.bin", "titok_vq"])
@torch.no_grad()
def test_tokenizers_of_titok(file, tmp_path):
    """From the file, and from a run that was made of it."""
    published, expected = load(GOLDEN / file), golden(Path(file).stem)
    model_file.save(published, tmp_path / "run")
    for model in (published, model_file.load(tmp_path / "run")):
        made, images = model.compressor, expected["images"] * 2 - 1
        assert torch.equal(made.encode(images), expected["codes"])
        assert (model.preprocessing.height, model.preprocessing.width) == images.shape[-2:]
        torch.testing.assert_close(made.latents(images), expected["latents_before_quantization"], **CLOSE)
        torch.testing.assert_close(unit(made(images).images), expected["reconstruction"], **CLOSE)
        for codes in ("codes", "random_codes"):
            decoded = unit(made.decode(expected[codes], model.layout))
            torch.testing.assert_close(decoded, expected[f"decoded_from_{codes}"], **CLOSE)


@torch.no_grad()
def test_normal_distributions_of_titok():
    made, expected = load(GOLDEN / "titok_vae").compressor, golden("titok_vae")
    images = expected["images"] * 2 - 1
    torch.testing.assert_close(made.latents(images), expected["parameters"], **CLOSE)
    posterior = torch.stack([expected["mean"], expected["std"]], dim=1)
    torch.testing.assert_close(made.posterior(images), posterior, **CLOSE)
    torch.testing.assert_close(unit(made(images).images), expected["decoded_from_mean"], **CLOSE)
    decoded = unit(made.images(expected["random_latents"], (20, 20)))
    torch.testing.assert_close(decoded, expected["decoded_from_random_latents"], **CLOSE)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("encoder.positional_embedding", torch.zeros(36, 64), "35 and 16 patches are not square grids"),
        ("decoder.positional_embedding", torch.zeros(1, 128), "36 and 0 patches are not square grids"),
        ("decoder.positional_embedding", torch.zeros(50, 128), "24 pixels do not consist of 7 patches"),
        ("encoder.patch_embed.weight", torch.zeros(60, 3, 4, 4), "60 channels.* not a multiple of 64"),
        ("decoder.ffn.0.weight", torch.zeros(100, 128, 1, 1), "not square patches of 3 colours"),
        ("latent_tokens", torch.zeros(7, 64), "incompatible shapes"),
        ("decoder.text_guidance_proj.weight", torch.zeros(1), "also has decoder.text_guidance_proj.weight"),
    ],
)
def test_other_tensors_of_titok_are_refused(name, value, message, tmp_path):
    state = load_file(GOLDEN / "titok_vq" / "model.safetensors") | {name: value}
    save_file(state, tmp_path / "changed.safetensors")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "changed.safetensors")


def test_latents_are_scrambled_unless_the_settings_deny_it(tmp_path):
    """Of 1d-tokenizer's `is_legacy`; without settings, the number of stages tells."""
    settings = json.loads((GOLDEN / "titok_vq" / "config.json").read_text())
    state, file = load_file(GOLDEN / "titok_vq" / "model.safetensors"), tmp_path / "model.safetensors"
    save_file(state, file)
    assert not load(file).compressor.network.scrambled
    for value, expected in ((None, True), (True, True), (False, False)):
        settings["model"]["vq_model"].pop("is_legacy", None)
        if value is not None:
            settings["model"]["vq_model"]["is_legacy"] = value
        (tmp_path / "config.json").write_text(json.dumps(settings))
        assert load(tmp_path).compressor.network.scrambled == expected


def test_a_tokenizer_of_the_first_stage_is_refused(tmp_path):
    """Its output are codes of another tokenizer, which is not in the file."""
    state = read(GOLDEN / "titok_stage2.bin").tensors()
    first = {name: value.clone() for name, value in state.items() if not name.startswith("pixel_")}
    torch.save(first, tmp_path / "first.bin")
    with pytest.raises(UserError, match="of the first stage makes no images; give that of the second"):
        load(tmp_path / "first.bin")


def test_positions_that_old_transformers_stored_are_ignored(tmp_path):
    state = load_file(GOLDEN / "maskgit_vit" / "model.safetensors")
    state["model.embeddings.position_ids"] = torch.arange(8)[None]
    save_file(state, tmp_path / "old.safetensors")
    options = ImportOptions(heads=4, compressor=str(GOLDEN / "titok_stage2.bin"))
    assert load(tmp_path / "old.safetensors", options).layout.length == 7


@pytest.mark.parametrize(
    "pixels", [SmoothedPatches(), SoftCodes(MaskGITNetwork(8, 4, (1, 1, 2), 1), codebook_size=6)]
)
def test_networks_of_titok_can_be_trained(pixels):
    """Every parameter gets a gradient, and images of another size are refused."""
    plan = TiTok(6, 4, 16, 1, 2, tokens=4, image_size=(8, 12), pixels=pixels, decoder_width=8, scrambled=True)
    model = Autoencoder(3, plan, VectorQuantizer(8, 6), projection=0)
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    reconstruction = model(images)
    ((reconstruction.images - images).square().mean() + sum(reconstruction.losses.values())).backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing
    assert model.last_layer.grad.abs().sum() > 0
    with pytest.raises(UserError, match=r"16x12 does not match the learned positions.* use 8x12"):
        model.encode(torch.zeros(1, 3, 16, 12))
    with pytest.raises(UserError, match="patch 4 must equal the stride 2"):
        TiTok(patch=4, pixels=SoftCodes(MaskGITNetwork(multipliers=(1, 1)))).decoder(3)


RAR = {
    "greedy_codes": {},
    "greedy_codes_cfg1": {"guidance": 1.0},
    "greedy_codes_cfg4_pow2.75": vars(sampling_options(1.0, 4.0, 2.75)),
}


@pytest.mark.slow
@torch.no_grad()
def test_transformers_of_rar():
    """In raster order and any other; greedy codes with and without its guidance."""
    weights, expected = Weights(read(GOLDEN / "rar.bin").tensors(), {}), golden("rar")
    prior = transformer(weights, CodeLayout((32, 32), 128, ((8, 8),)))
    assert not weights.unused(())
    codes, labels = expected["codes"].flatten(1), expected["condition"]
    null, raster = prior.condition.null(labels), prior.raster(codes)
    torch.testing.assert_close(prior.logits(codes, labels, raster), expected["logits"], **CLOSE)
    torch.testing.assert_close(prior.logits(codes, null, raster), expected["logits_null"], **CLOSE)
    in_order = prior.logits(codes, labels, expected["orders"])
    torch.testing.assert_close(in_order, expected["logits_in_order"], **CLOSE)
    assert {name for name in expected if name.startswith("greedy")} == RAR.keys()
    for name, given in RAR.items():
        options = SamplingOptions(**{**given, "temperature": 0.0})
        sampled = prior.sample(labels, options, image_seeds(0, range(len(labels))))
        assert torch.equal(sampled, expected[name].flatten(1)), name


@pytest.fixture
def vqgan(tmp_path):
    """A run with a VQGAN of MaskGIT for 8 x 8 codes of 128."""
    network = MaskGITNetwork(10, 4, (1, 1, 1), 1)
    made = Autoencoder(3, network, VectorQuantizer(128, 10), projection=0).eval()
    model_file.save(Model(made, Preprocessing(3, 32, 32)), tmp_path / "vqgan")
    return tmp_path / "vqgan"


def test_rar_with_its_tokenizer_is_a_run(vqgan, tmp_path, capsys):
    """Imported, and used directly with a note."""
    file, run, expected = tmp_path / "rar.bin", tmp_path / "run", golden("rar")
    file.symlink_to(GOLDEN / "rar.bin")
    assert main(["import", str(file), "--out", str(run)]) == 2
    assert "does not hold its tokenizer" in capsys.readouterr().err
    assert not main(["import", str(file), "--compressor", str(vqgan), "--out", str(run)])
    (tmp_path / "rar.bin.yaml").write_text("compressor: vqgan")
    codes, labels = expected["codes"].flatten(1), expected["condition"]
    for model in (model_file.load(run), genstack.load(file)):
        assert len(model.classes) == 10
        with torch.no_grad():
            logits = model.prior.logits(codes, labels, model.prior.raster(codes))
        torch.testing.assert_close(logits, expected["logits"], **CLOSE)
    larger = ["--compressor", str(vqgan), "--resolution", "64", "--out", str(tmp_path / "other")]
    assert main(["import", str(file), *larger]) == 2
    assert "reads 64 codes of 128, but the compressor has 256 of 128" in capsys.readouterr().err


def all_logits(prior, codes, values):
    """Logits of all codes, of which some are the mask."""
    masked, condition = codes == prior.layout.codebook_size, prior.network.encode_condition(values)
    logits = prior.network(codes.masked_fill(masked, 0), masked, torch.ones_like(masked), condition)
    return logits.unflatten(0, codes.shape)


def guided(scale, decay="constant", power=3.0):
    """Greedy sampling of 1d-tokenizer."""
    settings = {"guidance_scale": scale, "guidance_decay": decay, "guidance_scale_pow": power}
    return vars(titok_generator.sampling_options(settings)) | {"temperature": 0.0}


GENERATED = {
    "greedy_codes_steps4": {"temperature": 0.0, "steps": 4},
    "greedy_codes_cfg2_steps4": guided(2) | {"steps": 4},
    "greedy_codes_cfg3_linear_steps3": guided(3, "linear") | {"steps": 3},
    "greedy_codes_cfg4_powercosine2_steps5": guided(4, "power-cosine", 2) | {"steps": 5},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "heads", "part", "read_file"),
    [("maskgit_vit", 4, "model.", titok_generator.vit), ("maskgit_uvit.bin", 5, "", titok_generator.uvit)],
)
@torch.no_grad()
def test_generators_of_titok(file, heads, part, read_file):
    """Without noise, the code of highest logit is kept first."""
    weights, expected = Weights(read(GOLDEN / file).tensors(), {}), golden(Path(file).stem)
    codes, labels = expected["masked_codes"], expected["condition"]
    layout = CodeLayout((24, 24), expected["logits"].shape[-1], ((1, codes.shape[1]),))
    order, inside = Confidence(0.0, score="logit"), weights.inside(part)
    prior = titok_generator.transformer(inside, layout, order, *read_file(inside, heads))
    assert not weights.unused(())
    hidden = torch.full_like(codes, layout.codebook_size)
    for found, name in (
        (all_logits(prior, codes, labels), "logits"),
        (all_logits(prior, codes, prior.condition.null(labels)), "logits_null"),
        (all_logits(prior, hidden, labels), "logits_all_masked"),
    ):
        torch.testing.assert_close(found, expected[name], **CLOSE)
    assert {name for name in expected if name.startswith("greedy")} == GENERATED.keys()
    for name, options in GENERATED.items():
        sampled = prior.sample(labels, SamplingOptions(**options), image_seeds(0, range(len(labels))))
        assert torch.equal(sampled, expected[name]), name


def on_meta(shapes, depth):
    """Weights of these shapes; `{}` in a name stands for each layer."""
    shapes = {name.format(layer): shape for name, shape in shapes.items() for layer in range(depth)}
    return Weights({name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, {})


@pytest.mark.parametrize(
    ("width", "depth", "heads", "hidden"),
    [(384, 6, 6, 1024), (512, 12, 6, 1536), (768, 12, 12, 2048), (1024, 24, 16, 2816), (1152, 28, 16, 3072)],
)
def test_published_sizes_of_halton_maskgit(width, depth, heads, hidden):
    """Heads of the small one have 85 channels each, 510 of 512."""
    place = "transformer.layers.{}"
    shapes = {f"{place}.attn.wq.weight": (width // heads * heads, width)}
    shapes |= {f"{place}.ff.w1.weight": (hidden, width), "reg_tokens.weight": (1, width)}
    found = halton.plan(on_meta(shapes, depth), width, heads)
    assert (found.depth, found.head_width, found.mlp_width) == (depth, width // heads, hidden)
    assert found.registers == 1


@pytest.mark.parametrize(
    ("width", "depth", "hidden"), [(768, 24, 3072), (1024, 24, 4096), (1280, 32, 5120), (1408, 40, 6144)]
)
def test_published_sizes_of_rar(width, depth, hidden):
    """16 heads each; a size that is not published has another width."""
    shapes = {"blocks.{}.attn.q_norm.weight": (width // 16,), "blocks.{}.attn.qkv.weight": (3 * width, width)}
    found = rar.plan(on_meta(shapes | {"blocks.{}.mlp.fc1.weight": (hidden, width)}, depth), width)
    assert (found.depth, found.heads, found.mlp_width) == (depth, 16, hidden)
    assert width in rar.SAMPLING


@torch.no_grad()
def test_transformers_of_halton_maskgit():
    """The mask itself may win; then later steps read it, and the last code stands for it."""
    weights, expected = Weights(read(GOLDEN / "halton_maskgit.pth").tensors(), {}), golden("halton_maskgit")
    prior = halton.transformer(weights, CodeLayout((80, 80), 60, ((5, 5),)), heads=3)
    assert not weights.unused(())
    codes, labels = expected["masked_codes"].flatten(1), expected["condition"]
    torch.testing.assert_close(all_logits(prior, codes, labels), expected["logits"], **CLOSE)
    null = all_logits(prior, codes, prior.condition.null(labels))
    torch.testing.assert_close(null, expected["logits_null"], **CLOSE)
    ranks = prior.order.ranks(prior.layout, torch.zeros(1, 25))[0]
    row, column = expected["halton_order"].T
    assert torch.equal(ranks[5 * row + column], torch.arange(25.0))
    for name, guidance in (("greedy_codes_step6", 1.0), ("greedy_codes_cfg1.5_step6", 2.5)):
        options = SamplingOptions(temperature=0.0, guidance=guidance, steps=6)
        sampled = prior.sample(labels, options, image_seeds(0, range(2)))
        assert torch.equal(sampled, expected[name].flatten(1)), name
        assert (sampled == 59).any()


@pytest.mark.slow
def test_generators_are_recognised_and_ask_for_their_tokenizers(tmp_path):
    """A hub folder tells heads and sampling by its settings."""
    tokenizer = str(GOLDEN / "titok_stage2.bin")
    model = load(GOLDEN / "maskgit_vit", ImportOptions(compressor=tokenizer))
    assert (model.layout.length, len(model.classes), model.prior.backbone.heads) == (7, 11, 4)
    options = model.options("titok")
    assert (options.guidance, options.guidance_schedule, options.steps) == (5.5, "linear", 8)
    assert model.prior.order.temperature == options.temperature == 9.5
    model_file.save(model, tmp_path / "run")
    again = model_file.load(tmp_path / "run")
    assert all(map(torch.equal, again.modules().state_dict().values(), model.modules().state_dict().values()))
    for file, given, message in (
        ("maskgit_uvit.bin", {}, "give it by --heads"),
        ("maskgit_uvit.bin", {"heads": 5}, "does not hold its tokenizer"),
        ("maskgit_uvit.bin", {"heads": 5, "compressor": tokenizer}, "reads 11 codes of 90.* has 7 of 50"),
        ("halton_maskgit.pth", {"compressor": tokenizer}, "give it by --heads"),
        ("halton_maskgit.pth", {"heads": 3, "compressor": tokenizer}, "reads 5x5 codes of 60"),
        ("halton_maskgit.pth", {"heads": 5, "compressor": tokenizer}, "reads 5x5 codes of 60"),
    ):
        with pytest.raises(UserError, match=message):
            load(GOLDEN / file, ImportOptions(**given))


@pytest.mark.slow
@torch.no_grad()
def test_images_of_rar():
    """Sampled by the published transformer and decoded by the published tokenizer, both in one model."""
    tokenizer = str(GOLDEN / "maskgit_vqgan.safetensors")
    model = load(GOLDEN / "rar.bin", ImportOptions(compressor=tokenizer, resolution="32"))
    expected = golden("rar")
    inputs = ConditionInputs(expected["condition"])
    images = unit(model.sample(inputs, SamplingOptions(temperature=0.0), 0, range(2)))
    torch.testing.assert_close(images, expected["decoded_from_greedy_codes"], **CLOSE)
