"""Archives of latents: means and deviations in half precision, with the guarantees of codes."""

import shutil
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from genstack.checkpoints.model_file import save
from genstack.compressor import Autoencoder, Convolutional, Gaussian
from genstack.data import ImageData
from genstack.data.codes.data import Archive, CodeData
from genstack.data.codes.storage import storage
from genstack.data.images import Preprocessing
from genstack.errors import UserError
from genstack.layout import LatentLayout
from genstack.model import Model

from .conftest import SIZE, encoder

SETTINGS = {"resolution": "8,12", "batch_size": 8, "validation": 0.2}


def vae() -> Model:
    torch.manual_seed(0)
    network = Convolutional(6, 4, (1, 2), 1, (), False)
    return Model(Autoencoder(3, network, Gaussian(3)).eval().requires_grad_(False), Preprocessing(3, *SIZE))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    save(vae(), folder / "run")
    return encoder(folder)("--views", "flip")


def test_batches_agree_with_images_within_rounding(made):
    model = vae()
    stored, images = CodeData(ImageData(str(made), **SETTINGS), model), ImageData("shapes:40", **SETTINGS)
    assert stored.split == images.split
    assert stored.archive.header.layout == LatentLayout(SIZE, 3, ((4, 6),))
    for one, other in islice(zip(stored.validation_loader(), images.validation_loader(), strict=True), 3):
        posterior = other.posterior(model.compressor.posterior)
        assert one.stored.shape == (len(one), 2, 3, 4, 6) and one.stored.dtype == torch.float32
        assert torch.equal(one.stored, posterior.half().float())
        assert torch.equal(one.inputs.labels, other.inputs.labels)
    assert "latents of 4x6, 3 channels" in stored.archive.header.layout.representation


def test_shards_are_half_precision(made):
    arrays = load_file(made / "000000.safetensors")
    assert arrays["latents"].dtype == np.float16 and arrays["latents"].shape == (7, 2, 2, 3, 4, 6)


def test_a_flipped_bit_is_refused(made, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(made, damaged)
    path = damaged / "000001.safetensors"
    content = bytearray(path.read_bytes())
    content[-40] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"000001.safetensors is damaged"):
        Archive(damaged).batch([8], [0])


def test_latents_out_of_range_are_refused():
    stored = storage(LatentLayout((8, 8), 1, ((2, 2),)))
    posterior = torch.ones(1, 2, 1, 2, 2)
    packed = stored.pack(posterior)
    assert stored.valid(packed[:, None]) and torch.equal(stored.unpack(packed), posterior)
    assert not stored.valid(-packed[:, None]) and not stored.valid(packed[:, None] * np.float16(np.inf))
    for wrong in (1e5, float("nan")):
        with pytest.raises(UserError, match="must be at most 65504 to be stored in half precision"):
            stored.pack(posterior * wrong)
