"""Decode a picture from its codes, with changes that you give.

genstack decode runs/flowers rose.jpg --change 12=7 40=3
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genstack.checkpoints.model_file import load
from genstack.cli.parsing.device import choose_device
from genstack.cli.parsing.paths import Place, Trained, check_png
from genstack.data.images import CHUNK, save
from genstack.data.transforms import load as read
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.model import Model


def decode(
    run: Trained,
    picture: Place,
    change: tuple[str, ...] = (),
    out: Place = "decoded.png",
    device: str = "auto",
) -> None:
    """Decode a picture from its codes, with changes that you give, and write the image.

    Args:
        run: folder of a compressor's or a prior's run, or a published file.
        picture: picture to encode; scaled and cropped as in training.
        change: codes to change, as in `12=7 40=3`: the code at position 12 becomes 7. Positions count from 0,
            grid by grid and row by row; of several symbols per position, each has its number.
        out: PNG file.
        device: auto, cpu, cuda or mps.
    """
    target = check_png(out)
    model = load(Path(run)).to(choose_device(device))
    layout = code_layout(model)
    changes = parse_changes(change, layout)
    codes = change_codes(encode_file(model, Path(picture)), changes)
    save_decoded(model, codes, changes, target)
    print(f"{out}: {picture} from {layout.representation}, {len(changes)} changed")


def code_layout(model: Model) -> CodeLayout:
    """Layout of the codes of an image; an error without codes."""
    return model.compressor.code_layout(model.preprocessing.height, model.preprocessing.width)


def parse_changes(words: Sequence[str], layout: CodeLayout) -> dict[int, int]:
    """Read the new code at each position from words such as `12=7`."""
    changes: dict[int, int] = {}
    for word in " ".join(words).replace(",", " ").split():
        position, equals, code = word.partition("=")
        if not equals or not position.isdecimal() or not code.isdecimal():
            raise UserError(f"invalid --change '{word}'; expected POSITION=CODE, such as 12=7")
        limits = {"position": (int(position), layout.length), "code": (int(code), layout.codebook_size)}
        for name, (value, count) in limits.items():
            if value >= count:
                raise UserError(f"--change {word}: {name} must be from 0 to {count - 1}, got {value}")
        changes[int(position)] = int(code)
    return changes


def change_codes(codes: Int[Tensor, "1 n"], changes: Mapping[int, int]) -> Int[Tensor, "1 n"]:
    """Replace codes by position."""
    changed = codes.clone()
    for position, code in changes.items():
        changed[0, position] = code
    return changed


def save_decoded(model: Model, codes: Int[Tensor, "1 n"], changes: Mapping[int, int], file: Path) -> None:
    """Decode codes, and write the picture with its settings."""
    settings = {"change": [f"{position}={code}" for position, code in changes.items()]}
    text = json.dumps({**settings, "model": model.fingerprint})
    save(decode_codes(model, codes)[0], file, model.preprocessing, {CHUNK: text})


@torch.no_grad()
def encode_file(model: Model, file: Path) -> Int[Tensor, "1 n"]:
    """Encode a picture."""
    return model.compressor.encode(read(file, model.preprocessing)[None].to(model.device))


@torch.no_grad()
def decode_codes(model: Model, codes: Int[Tensor, "b n"]) -> Float[Tensor, "b c H W"]:
    """Decode codes to images in [-1, 1]."""
    return model.compressor.decode(codes, code_layout(model)).clamp(-1, 1).cpu()
