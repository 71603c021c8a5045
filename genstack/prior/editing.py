"""Drawing a part of a picture anew: completion, inpainting and outpainting are known codes and a hole.

The hole grows to all codes that saw it through the encoder; outside of it no pixel changes.
"""

import re

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from genstack.compressor import Compressor
from genstack.errors import UserError
from genstack.layout import CodeLayout
from genstack.prior.prior import Known, Prior
from genstack.prior.window import check_places

SIDES = ("top", "bottom", "left", "right")
TRIALS = 16  # images by which the reach of an encoder is measured
MOST = 0.5  # share of codes that change within reach; attention and normalization touch a few everywhere


def all_but(keep: str, height: int, width: int) -> Bool[Tensor, "H W"]:
    """The hole that leaves a share of an image at one side: `top:0.5`, `left:0.25`.

    Raises:
        UserError: this is no side and share.
    """
    match = re.fullmatch(r"(\w+):([\d.]+)", keep)
    share = float(match[2]) if match and match[2].count(".") <= 1 and match[2] != "." else 0.0
    if not match or match[1] not in SIDES or not 0 < share < 1:
        raise UserError(
            f"keep {keep} is no part of an image; give a side ({', '.join(SIDES)}) and a share "
            f"between 0 and 1, as in top:0.5"
        )
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    from_side = {"top": rows, "bottom": height - 1 - rows, "left": columns, "right": width - 1 - columns}
    side = height if match[1] in ("top", "bottom") else width
    return from_side[match[1]] >= round(side * share)


def extended(
    image: Float[Tensor, "c h w"], size: tuple[int, int], place: tuple[float, float], step: tuple[int, int]
) -> tuple[Float[Tensor, "c H W"], Bool[Tensor, "H W"]]:
    """An image on a larger one, and the hole around it.

    Args:
        image: to lay there.
        size: height and width of the larger image.
        place: share of the free way from the top and from the left; 0.5,0.5 is the middle.
        step: rows and columns of pixels that one code stands for; the image begins at a multiple of them.

    Raises:
        UserError: the image does not fit.
    """
    height, width = image.shape[-2:]
    if height > size[0] or width > size[1]:
        raise UserError(
            f"size {size[0]}x{size[1]} is smaller than the image, {height}x{width}; use at least that"
        )
    if not all(0 <= share <= 1 for share in place):
        raise UserError(f"place {place[0]},{place[1]} is out of range; give two shares from 0 to 1")
    top, left = (
        round((whole - side) * share / cell) * cell
        for whole, side, share, cell in zip(size, (height, width), place, step, strict=True)
    )
    top, left = min(top, size[0] - height), min(left, size[1] - width)
    canvas, hole = image.new_zeros(len(image), *size), torch.ones(size, dtype=torch.bool)
    canvas[:, top : top + height, left : left + width] = image
    hole[top : top + height, left : left + width] = False
    return canvas, hole


def filled(images: Float[Tensor, "b c H W"], hole: Bool[Tensor, "H W"]) -> Float[Tensor, "b c H W"]:
    """Images whose hole has the mean colour of what is near, whatever was there before."""
    weight = rearrange((~hole).float(), "h w -> 1 1 h w")
    result, side = images * weight, 3
    if hole.all():
        return result
    missing = rearrange(hole, "h w -> 1 1 h w")
    while missing.any():
        near = functional.avg_pool2d(weight, side, 1, side // 2, divisor_override=1)
        colours = functional.avg_pool2d(images * weight, side, 1, side // 2, divisor_override=1)
        result = torch.where(missing & (near > 0.5), colours / near.clamp(min=1), result)
        missing, side = missing & (near <= 0.5), 2 * side + 1
    return result


@torch.no_grad()
def reaches(compressor: Compressor, layout: CodeLayout) -> tuple[int, ...]:
    """How many codes around a place change with the pixels of that place, for each grid.

    Measured: in images of random codes, the pixels under one code of the finest grid are exchanged, and the
    images are encoded again. A distance is reached where most of its codes change.

    Raises:
        UserError: codes have no place in the image.
    """
    check_places(layout, "draw whole images")
    chance = torch.Generator().manual_seed(0)
    codes = torch.randint(layout.codebook_size, (TRIALS, layout.length), generator=chance)
    device = next(compressor.parameters()).device
    images = compressor.decode(codes.to(device), layout).clamp(-1, 1)
    rows, columns = layout.grids[-1]
    spot = torch.zeros(rows, columns, dtype=torch.bool)
    spot[rows // 2, columns // 2] = True
    pixels = enlarged(spot, layout.image_size).to(device)
    before, after = (
        layout.split(compressor.encode(each))
        for each in (images, torch.where(pixels, images.roll(1, 0), images))
    )
    found = []
    for grid, old, new in zip(layout.grids, before, after, strict=True):
        changed = (old != new).any(dim=-1).float().mean(dim=0).cpu()
        touched, reach = shrunk(enlarged(spot, layout.image_size), grid), 0
        for distance in range(1, max(grid)):
            ring = grown(touched, distance) & ~grown(touched, distance - 1)
            if ring.any() and changed[ring].mean() > MOST:
                reach = distance
        found.append(reach)
    return tuple(found)


def known_codes(
    compressor: Compressor,
    images: Float[Tensor, "b c H W"],
    hole: Bool[Tensor, "H W"],
    reach: tuple[int, ...],
) -> Known:
    """The codes of images outside of a hole, which grows by so many codes in each grid, from `reaches`.

    Raises:
        UserError: codes have no place in the image, or none is left outside of the hole.
    """
    height, width = hole.shape
    layout = compressor.layout(height, width)
    check_places(layout, "draw whole images")
    codes = compressor.encode(filled(images, hole))
    masks = [
        repeat(~grown(shrunk(hole, grid), steps), "h w -> b (h w depth)", b=len(images), depth=layout.depth)
        for grid, steps in zip(layout.grids, reach, strict=True)
    ]
    mask = torch.cat(masks, dim=1)
    if not mask.any() and not hole.all():
        raise UserError(
            f"the hole grows by {max(reach)} codes, as far as the encoder sees, and leaves none of the "
            f"{layout.length} known; keep more of the image, or grow less"
        )
    return Known(codes, mask.to(codes.device))


def blind(prior: Prior, known: Known) -> bool:
    """Whether some known codes lie behind all that the prior sees when it draws the first of the others."""
    first = (~known.mask).int().argmax(dim=1, keepdim=True)
    behind = torch.arange(known.mask.shape[1], device=known.mask.device) > first
    return prior.sees == "earlier" and bool(
        (known.mask & behind & ~known.mask.all(dim=1, keepdim=True)).any()
    )


def enlarged(cells: Bool[Tensor, "h w"], size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """The pixels under marked cells of a grid."""
    (rows, columns), (height, width) = cells.shape, size
    row = torch.arange(height) * rows // height
    column = torch.arange(width) * columns // width
    return cells[row][:, column]


def shrunk(pixels: Bool[Tensor, "H W"], grid: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """The cells of a grid that have a marked pixel under them."""
    batch = rearrange(pixels.float(), "h w -> 1 1 h w")
    return functional.adaptive_max_pool2d(batch, grid)[0, 0] > 0.5


def grown(cells: Bool[Tensor, "h w"], steps: int) -> Bool[Tensor, "h w"]:
    """Marked cells and all within so many steps, diagonal ones too."""
    batch = rearrange(cells.float(), "h w -> 1 1 h w")
    return functional.max_pool2d(batch, 2 * steps + 1, 1, steps)[0, 0] > 0.5
