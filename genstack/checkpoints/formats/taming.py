"""taming-transformers (Esser et al. 2021, arXiv:2012.09841); latent-diffusion's VQ has the same names."""

from genstack.checkpoints.formats.averages import AROUND, ema_weights
from genstack.checkpoints.formats.convolutional import Names, compressor, network, plan_of
from genstack.checkpoints.formats.format import Format, Weights, filled, preprocessing
from genstack.checkpoints.import_options import ImportOptions
from genstack.compressor import Autoencoder
from genstack.compressor.quantizers import Gumbel
from genstack.model import Model

NAMES = Names()


class TamingVQGAN(Format):
    """VQModel; latent-diffusion and SEED-Voken write averaged weights beside it, under names without dots.

    IBQ of SEED-Voken has the same tensors and another rule for its codes, which has to be said.
    """

    what = "VQGAN of taming-transformers, latent-diffusion or SEED-Voken (IBQ)"
    marks = (
        "encoder.down.0.block.0.conv1.weight",
        "encoder.mid.block_1.conv1.weight",
        "quant_conv.weight",
        "quantize.embedding.weight",
    )
    unlike = ("quantize.ema_vocab_hit_SV",)
    beside = AROUND
    asks = ("resolution", "ema", "ibq")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        made = compressor(ema_weights(weights) if options.ema else weights, products=options.ibq)
        return Model(made, preprocessing(made, options))


class TamingGumbel(Format):
    """GumbelVQ. Its forward draws noise even in use; ours takes the likeliest code."""

    what = "GumbelVQ of taming-transformers"
    marks = ("encoder.down.0.block.0.conv1.weight", "quantize.proj.weight", "quantize.embed.weight")
    beside = AROUND

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        made = gumbel(weights)
        return Model(made, preprocessing(made, options))


def gumbel(weights: Weights) -> Autoencoder:
    """An autoencoder with Gumbel-softmax codes."""
    plan, channels = plan_of(weights, NAMES)
    size, dim = weights.dims("quantize.embed.weight", 2)
    logits = weights.take("quantize.proj.weight")
    found = network(weights, NAMES, plan)
    found |= weights.both("quant_conv", "to_quantizer") | weights.both("post_quant_conv", "from_quantizer")
    found |= {
        "quantizer.logits.weight": logits.map(lambda each: each.reshape(*logits.shape[:2])),
        "quantizer.logits.bias": weights.take("quantize.proj.bias"),
        "quantizer.rows": weights.take("quantize.embed.weight"),
    }
    return filled(lambda: Autoencoder(channels, plan, Gumbel(size, dim, sharpness=None)), found)
