"""Make a run of a model that another project published.

genstack import vqgan_imagenet_f16_1024.ckpt --out runs/vqgan-f16
"""

from pathlib import Path

from genstack.checkpoints import import_options
from genstack.checkpoints.formats.format import FLAGS, Options
from genstack.checkpoints.model_file import TENSORS, load, save
from genstack.checkpoints.published import formats
from genstack.checkpoints.published import load as load_published
from genstack.cli.parsing.paths import Place
from genstack.errors import UserError
from genstack.model import Model


def import_(  # noqa: PLR0913, PLR0917 - each is a flag
    file: Place = "",
    out: Place = "",
    resolution: str = "",
    heads: int = 0,
    classes: int | None = None,
    ema: bool = False,
    compressor: str = "",
    scales: str = "",
    ibq: bool = False,
    text_encoder: str = "",
    list: bool = False,
) -> None:
    """Make a run of a model that another project published; nothing in its file is imported or called.

    The options can also be said once in FILE.yaml, such as `heads: 16`; then FILE stands wherever a run does.

    Args:
        file: a checkpoint (.ckpt, .pt, .pth, .bin, .pkl, .safetensors), or a folder of diffusers.
        out: folder of the new run.
        resolution: height and width of the images, like 256 or 256,384; 256 if left out.
        heads: attention heads of a transformer, which its tensors do not tell.
        classes: classes that steer a transformer of taming-transformers, 0 for none.
        ema: take the averaged weights, where the file has them beside the others.
        compressor: run or published file of the compressor, for a transformer whose file does not hold it.
        scales: sides of the grids of a multi-scale compressor, like 1,2,3,4; VAR's own if left out.
        ibq: the file is an IBQ of SEED-Voken, whose tensors are named as those of a VQGAN.
        text_encoder: folder of the text encoder of a transformer that reads captions, or hf:user/name on the
            hub; without it, images can be drawn, but not by captions.
        list: show the kinds of files that are known.
    """
    if list:
        print(known())
        return
    if not file or not out:
        raise UserError(
            "name a file and a folder: genstack import FILE --out RUN; --list shows what is known"
        )
    if (Path(out) / TENSORS).exists():
        raise UserError(f"{out} holds a model already; choose another --out")
    before = load(Path(compressor)) if compressor else None
    side, scale = import_options.size(resolution), import_options.sides(scales)
    given = Options(side, heads, classes, ema, before, scale, ibq, text_encoder)
    model = load_published(Path(file), given.over(import_options.options(Path(file), load)))
    save(model, Path(out))
    print(f"{out}: {summary(model)}. {following(model, out)}")


def known() -> str:
    """The kinds of files that can be read, one a line, with the options that each asks for."""
    lines = []
    for kind in sorted(formats().values(), key=lambda kind: kind.what):
        options = " ".join(flag for name, flag in FLAGS.items() if name in kind.asks)
        lines.append(f"{kind.what}\n    {options}")
    return "\n".join(lines)


def summary(model: Model) -> str:
    """What was read, in a few words."""
    weights = sum(parameter.numel() for parameter in model.modules().parameters())
    height, width = model.preprocessing.height, model.preprocessing.width
    prior = f" and {type(model.prior).__name__}" if model.prior else ""
    return (
        f"{model.metadata['published']}, {type(model.compressor).__name__}{prior}, "
        f"{weights / 1e6:.3g} M weights, images {height}x{width}"
    )


def following(model: Model, out: str) -> str:
    """What a user does next."""
    if model.prior:
        return f"Next:  genstack sample {out} --count 16"
    return f"Next:  genstack reconstruct {out} --source DIR"
