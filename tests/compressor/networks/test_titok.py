"""One-dimensional codes end to end on the command line: compressor, prior and samples."""

import pytest
import torch

from genstack.checkpoints.model_file import load
from genstack.cli.main import main
from genstack.compressor.networks.titok import TiTok

COMPRESSOR = """train compressor --config {configs}/compressor/titok.yaml --data.source shapes
    --data.resolution 16,24 --data.limit 20 --data.batch_size 4 --data.validation 0.2
    --model.perceptual null --model.adversary null
    --model.compressor.network.tokens 6 --model.compressor.network.width 16
    --model.compressor.network.depth 1 --model.compressor.network.heads 2
    --model.compressor.quantizer.codebook_size 16
    --trainer.max_steps 2 --trainer.accelerator cpu --name row"""
PRIOR = """train prior --compressor runs/row --model.prior Autoregressive --model.prior.backbone.width 16
    --model.prior.backbone.depth 1 --model.prior.backbone.heads 2 --trainer.max_steps 2
    --trainer.accelerator cpu --name row-prior"""
SAMPLE = "sample runs/row-prior --count 3 --seed 1 --out samples --device cpu"


@pytest.mark.parametrize("seed", range(3))
def test_initial_codes_depend_on_the_image(seed):
    """Learned tokens do not drown what they read: latents differ by image as they do by place."""
    torch.manual_seed(seed)
    encoder = TiTok(tokens=16, patch=8, width=96, depth=2, heads=4).encoder(3)
    colours = torch.rand(64, 3, 1, 1) * 2 - 1
    latents = encoder(colours.expand(64, 3, 32, 32))
    assert latents.var(dim=0).mean() > 0.3 * latents.var(dim=3).mean()


@pytest.mark.slow
def test_titok_trains_and_samples_end_to_end(tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    configs = request.config.rootpath / "configs"
    for command in (COMPRESSOR.format(configs=configs), PRIOR, SAMPLE):
        assert not main(command.split())
    model = load(tmp_path / "runs" / "row-prior")
    assert model.layout.grids == ((1, 6),)
    assert model.layout.image_size == (16, 24)
    assert len(list((tmp_path / "samples").glob("*.png"))) >= 3
