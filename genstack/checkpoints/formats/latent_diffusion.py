"""latent-diffusion (Rombach et al. 2021, arXiv:2112.10752): its KL; its VQ is named as taming's."""

from genstack.checkpoints.formats.averages import AROUND, ema_weights
from genstack.checkpoints.formats.convolutional import gaussian
from genstack.checkpoints.formats.format import Format, Weights, preprocessing
from genstack.checkpoints.import_options import ImportOptions
from genstack.model import Model


class LatentDiffusionKL(Format):
    """AutoencoderKL, for reconstruction: it has no codes."""

    what = "KL autoencoder of latent-diffusion or FLUX"
    marks = (
        "encoder.down.0.block.0.conv1.weight",
        "encoder.mid.block_1.conv1.weight",
        "decoder.mid.block_1.conv1.weight",
    )
    unlike = ("quantize.embedding.weight", "quantize.embed.weight")
    beside = AROUND
    asks = ("resolution", "ema")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        made = gaussian(ema_weights(weights) if options.ema else weights)
        return Model(made, preprocessing(made, options))
