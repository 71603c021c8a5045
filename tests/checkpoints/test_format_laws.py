"""Laws of every published format, on its golden file."""

from pathlib import Path
from unittest import SkipTest

import pytest
import torch
from safetensors.torch import load_file

from genstack.checkpoints import model_file
from genstack.checkpoints.published import formats
from genstack.compressor import Autoencoder, Strided
from genstack.compressor.quantizers import VectorQuantizer
from genstack.data.images import Preprocessing
from genstack.model import Model
from genstack.testing import laws

GOLDEN = Path(__file__).parents[1] / "golden"
#: A file of each format, and its options.
FILES = {
    "DallE": ("openai_dvae", {"resolution": "16"}),
    "DiffusersKL": ("diffusers_kl_sd", {"resolution": "16"}),
    "DiffusersVQ": ("diffusers_vqmodel", {"resolution": "16"}),
    "LlamaGenTokenizer": ("llamagen_vq.pt", {"resolution": "32"}),
    "MaskBitTokenizer": ("maskbit_tokenizer.bin", {"resolution": "32"}),
    "MaskGITVQGAN": ("maskgit_vqgan.safetensors", {"resolution": "32"}),
    "OpenMAGVIT2": ("open_magvit2.ckpt", {"resolution": "32"}),
    "RosinalityVQVAE2": ("rosinality_vqvae2.safetensors", {"resolution": "32"}),
    "TamingGumbel": ("taming_gumbelvq.safetensors", {"resolution": "32"}),
    "TamingTransformer": ("taming_net2net_class.ckpt", {"heads": 4, "classes": 10}),
    "TamingTransformerOfImages": ("taming_net2net_depth.ckpt", {"heads": 4}),
    "TamingVQGAN": ("taming_vqgan.safetensors", {"resolution": "32"}),
    "TiTokTokenizer": ("titok_vq", {}),
    "VARTokenizer": ("var_vqvae.pth", {"scales": "1,2,3,4,6,8"}),
    # transformers; `compressor` is another golden file, or the number of codes of a small tokenizer
    "HaltonMaskGIT": ("halton_maskgit.pth", {"heads": 3, "compressor": 60, "resolution": "10"}),
    "IBQTransformer": (
        "ibq_transformer.safetensors",
        {"heads": 4, "compressor": "taming_vqgan.safetensors", "resolution": "16"},
    ),
    "LlamaGenPrior": ("llamagen_gpt_c2i.pt", {"heads": 4, "compressor": 160, "resolution": "16"}),
    "MaskBitGenerator": (
        "maskbit_generator.bin",
        {"heads": 4, "compressor": "maskbit_tokenizer.bin", "resolution": "16"},
    ),
    "OpenMAGVIT2Transformer": (
        "open_magvit2_transformer.safetensors",
        {"heads": 4, "compressor": "open_magvit2.ckpt", "resolution": "8"},
    ),
    "RAR": ("rar.bin", {"compressor": "maskgit_vqgan.safetensors", "resolution": "32"}),
    "TiTokUViT": ("maskgit_uvit.bin", {"heads": 5, "compressor": "titok_vq"}),
    "TiTokViT": ("maskgit_vit", {"compressor": "titok_stage2.bin"}),
}


def example(name, folder):
    """A file of a format, and options; the golden transformers of SEED-Voken have no prefix."""
    file, options = FILES.get(name, ("", {}))
    path = GOLDEN / file if file else ""
    if name in ("IBQTransformer", "OpenMAGVIT2Transformer"):
        path = folder / "stage_two.ckpt"
        state = load_file(GOLDEN / file)
        torch.save({f"transformer.{key}": value for key, value in state.items()}, path)
    compressor = options.get("compressor", "")
    if isinstance(compressor, int):
        made = Autoencoder(3, Strided(8, 2, 1, 4), VectorQuantizer(compressor, 4)).eval()
        model_file.save(Model(made, Preprocessing(3, 32, 32)), folder / "tokenizer")
        options = options | {"compressor": str(folder / "tokenizer")}
    elif compressor:
        options = options | {"compressor": str(GOLDEN / compressor)}
    return path, options


@pytest.mark.parametrize("name", formats())
def test_format_keeps_the_laws(name, tmp_path):
    """All laws on one file, since pytest takes longer to collect them than they take."""
    path, options = example(name, tmp_path)
    for law in laws(formats()[name], file=path, **options):
        try:
            law()
        except SkipTest:
            assert name not in FILES
