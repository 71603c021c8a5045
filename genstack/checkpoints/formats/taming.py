"""taming-transformers (Esser et al. 2021, arXiv:2012.09841); latent-diffusion's VQ has the same names."""

from genstack.checkpoints.formats.convolutional import Names, compressor, network, plan_of
from genstack.checkpoints.formats.format import (
    TRAINING_TENSORS,
    Format,
    Provenance,
    Weights,
    load_module,
    preprocessing,
)
from genstack.checkpoints.import_options import ImportOptions
from genstack.compressor import Autoencoder
from genstack.compressor.quantizers import Gumbel
from genstack.model import Model

NAMES = Names()


class TamingVQGAN(Format):
    """VQModel, with EMA weights in files of latent-diffusion and SEED-Voken.

    IBQ of SEED-Voken has the same tensors but other codes, so it needs the option `ibq`.
    """

    what = "VQGAN of taming-transformers, latent-diffusion or SEED-Voken (IBQ)"
    provenance = Provenance(
        files="vqgan_imagenet_f16_{1024,16384} on heibox.uni-heidelberg.de; vq-f{4,8,16}.zip "
        "(https://ommer-lab.com/files/latent-diffusion/); imagenet256_{1024,8192,16384,262144}.ckpt "
        "(hub: TencentARC/IBQ-Tokenizer-*)",
        source="CompVis/taming-transformers, CompVis/latent-diffusion, TencentARC/SEED-Voken",
        licence="MIT; SEED-Voken: Apache 2.0",
        weights="IBQ: Apache 2.0; others: not stated",
        checked="latents, codes, images, EMA",
    )
    required = (
        "encoder.down.0.block.0.conv1.weight",
        "encoder.mid.block_1.conv1.weight",
        "quant_conv.weight",
        "quantize.embedding.weight",
    )
    excluded = ("quantize.ema_vocab_hit_SV",)
    ignored = TRAINING_TENSORS
    options = ("resolution", "ema", "ibq")

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        made = compressor(weights.ema() if options.ema else weights, products=options.ibq)
        return Model(made, preprocessing(made, options))


class TamingGumbel(Format):
    """GumbelVQ. Its forward pass adds noise even in eval mode; ours takes the most likely code."""

    what = "GumbelVQ of taming-transformers"
    provenance = Provenance(
        files="vqgan_gumbel_f8 on heibox.uni-heidelberg.de",
        source="CompVis/taming-transformers",
        licence="MIT",
        weights="not stated",
        checked="latents, codes, images",
    )
    required = ("encoder.down.0.block.0.conv1.weight", "quantize.proj.weight", "quantize.embed.weight")
    ignored = TRAINING_TENSORS

    def model(self, weights: Weights, options: ImportOptions) -> Model:
        made = gumbel(weights)
        return Model(made, preprocessing(made, options))


def gumbel(weights: Weights) -> Autoencoder:
    """An autoencoder with Gumbel-softmax codes."""
    plan, channels = plan_of(weights, NAMES)
    size, dim = weights.dims("quantize.embed.weight", 2)
    logits = weights.take("quantize.proj.weight")
    found = network(weights, NAMES, plan)
    found |= weights.layer("quant_conv", "to_quantizer") | weights.layer("post_quant_conv", "from_quantizer")
    found |= {
        "quantizer.logits.weight": logits.map(lambda each: each.reshape(*logits.shape[:2])),
        "quantizer.logits.bias": weights.take("quantize.proj.bias"),
        "quantizer.rows": weights.take("quantize.embed.weight"),
    }
    return load_module(lambda: Autoencoder(channels, plan, Gumbel(size, dim, sharpness=None)), found)
