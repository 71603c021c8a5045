"""VAR's multi-scale tokenizer (Tian et al. 2024, arXiv:2404.02905)."""

from genstack.checkpoints.formats.convolutional import Names, network, plan_of
from genstack.checkpoints.formats.format import FLAGS, Format, Options, Weights, filled
from genstack.checkpoints.formats.taming import preprocessing
from genstack.checkpoints.strangers import Stored
from genstack.compressor import Autoencoder
from genstack.compressor.quantizers import MultiScale
from genstack.errors import UserError
from genstack.model import Model

#: The scales of the published tokenizer by their number, which is all that its file tells.
PUBLISHED = {10: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)}
HITS = "quantize.ema_vocab_hit_SV"
SMOOTHERS = "quantize.quant_resi.qresi_ls.{}"


class VARTokenizer(Format):
    """taming's network, with one layer for queries, keys and values, around grids of rising size."""

    what = "multi-scale tokenizer of VAR"
    marks = (
        "encoder.down.0.block.0.conv1.weight",
        "quant_conv.weight",
        "quantize.embedding.weight",
        "quantize.quant_resi.qresi_ls.0.weight",
        HITS,
    )
    beside = (r"quantize\.ema_vocab_hit_SV$",)
    asks = ("size", "scales")

    def model(self, weights: Weights, options: Options) -> Model:
        names, apart = Names(), separated(weights)
        plan, channels = plan_of(apart, names)
        size, dim = weights.dims("quantize.embedding.weight", 2)
        count, _ = weights.dims(HITS, 2)
        scales = options.scales or PUBLISHED.get(count, ())
        if len(scales) != count:
            raise UserError(
                f"it has {count} scales, and their sides cannot be read from the tensors; "
                f"say all {count} with {FLAGS['scales']}, such as {FLAGS['scales']} 1,2,3,4"
            )
        convolutions = weights.count(SMOOTHERS.format("{}") + ".weight")
        side = weights.dims("quant_conv.weight", 4)[-1]
        found = network(apart, names, plan)
        found |= weights.both("quant_conv", "to_quantizer") | weights.both(
            "post_quant_conv", "from_quantizer"
        )
        found["quantizer.codebook.weight"] = weights.take("quantize.embedding.weight")
        for number in range(convolutions):
            found |= weights.both(SMOOTHERS.format(number), f"quantizer.smoothers.{number}")
        made = filled(
            lambda: Autoencoder(
                channels, plan, MultiScale(scales, size, dim, convolutions=convolutions), projection=side
            ),
            found,
        )
        usual = scales[-1] * plan.stride
        return Model(made, preprocessing(made, options, (usual, usual)))


def separated(weights: Weights) -> Weights:
    """The same weights with queries, keys and values as three layers."""
    tensors = dict(weights.tensors)
    for name, stored in weights.tensors.items():
        place, fused, part = name.partition(".qkv.")
        if not fused:
            continue
        if not stored.shape or stored.shape[0] % 3:
            raise UserError(f"{name} has shape {stored.shape}, which is not three layers in one")
        weights.taken.add(name)
        for number, letter in enumerate("qkv"):
            tensors[f"{place}.{letter}.{part}"] = third(stored, number)
    return Weights(tensors, weights.config, weights.prefix, weights.taken)


def third(stored: Stored, number: int) -> Stored:
    """One of three equal parts of a tensor's rows."""
    rows = stored.shape[0] // 3
    return Stored(
        (rows, *stored.shape[1:]), stored.dtype, lambda: stored.read()[number * rows : (number + 1) * rows]
    )
