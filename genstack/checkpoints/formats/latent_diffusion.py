"""The KL autoencoder of latent-diffusion (Rombach et al. 2021, arXiv:2112.10752); its VQ is in taming.py."""

from genstack.checkpoints.formats.convolutional import gaussian
from genstack.checkpoints.formats.format import TRAINING_TENSORS, Format, Provenance, Weights, preprocessing
from genstack.checkpoints.import_options import ImportOptions
from genstack.model import Model


class LatentDiffusionKL(Format):
    """AutoencoderKL, for reconstruction: it has no codes."""

    what = "KL autoencoder of latent-diffusion or FLUX"
    provenance = Provenance(
        files="kl-f{4,8,16,32}.zip (https://ommer-lab.com/files/latent-diffusion/); ae.safetensors (hub: "
        "black-forest-labs/FLUX.1-schnell)",
        source="CompVis/latent-diffusion, black-forest-labs/flux",
        licence="MIT; Apache 2.0",
        weights="latent-diffusion: not stated; FLUX.1's autoencoder: Apache 2.0",
        checked="means and images of AutoencoderKL of diffusers with the same weights",
    )
    required = (
        "encoder.down.0.block.0.conv1.weight",
        "encoder.mid.block_1.conv1.weight",
        "decoder.mid.block_1.conv1.weight",
    )
    excluded = ("quantize.embedding.weight", "quantize.embed.weight")
    ignored = TRAINING_TENSORS
    options = ("resolution", "ema")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        compressor = gaussian(weights.ema() if options.ema else weights)
        return Model(compressor, preprocessing(compressor, options))
