"""Editing: completion, inpainting and outpainting sample the codes or latents under a mask.

The mask grows by the encoder's receptive field, since codes near it depend on what is under it.
"""

import re

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from genstack.compressor import Compressor
from genstack.errors import UserError
from genstack.layout import Layout
from genstack.prior.known import Known
from genstack.prior.prior import Prior
from genstack.prior.window import check_positions

SIDES = ("top", "bottom", "left", "right")
TRIALS = 16  # images to measure the receptive field of an encoder
THRESHOLD = 0.5  # share of codes that change within it; attention and normalization change a few everywhere


def completion_mask(keep: str, height: int, width: int) -> Bool[Tensor, "H W"]:
    """Mask all of an image but a share at one side, such as `top:0.5` or `left:0.25`."""
    match = re.fullmatch(r"(\w+):([\d.]+)", keep)
    share = float(match[2]) if match and match[2].count(".") <= 1 and match[2] != "." else 0.0
    if not match or match[1] not in SIDES or not 0 < share < 1:
        raise UserError(
            f"invalid keep '{keep}'; expected a side ({', '.join(SIDES)}) and a share between 0 and 1, "
            f"such as top:0.5"
        )
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    from_side = {"top": rows, "bottom": height - 1 - rows, "left": columns, "right": width - 1 - columns}
    side = height if match[1] in ("top", "bottom") else width
    return from_side[match[1]] >= round(side * share)


def outpainting_canvas(
    image: Float[Tensor, "c h w"], size: tuple[int, int], place: tuple[float, float], step: tuple[int, int]
) -> tuple[Float[Tensor, "c H W"], Bool[Tensor, "H W"]]:
    """Place an image on a larger canvas, and mask the canvas around it.

    Args:
        image: the image.
        size: height and width of the canvas.
        place: share of the free space above and to the left of the image; 0.5,0.5 is the middle.
        step: rows and columns of pixels per code; the image starts at a multiple of them.
    """
    height, width = image.shape[-2:]
    if height > size[0] or width > size[1]:
        raise UserError(f"size {size[0]}x{size[1]} is smaller than the image; use at least {height}x{width}")
    if not all(0 <= share <= 1 for share in place):
        raise UserError(f"place must be two shares from 0 to 1, got {place[0]},{place[1]}")
    top, left = (
        round((whole - side) * share / cell) * cell
        for whole, side, share, cell in zip(size, (height, width), place, step, strict=True)
    )
    top, left = min(top, size[0] - height), min(left, size[1] - width)
    canvas, mask = image.new_zeros(len(image), *size), torch.ones(size, dtype=torch.bool)
    canvas[:, top : top + height, left : left + width] = image
    mask[top : top + height, left : left + width] = False
    return canvas, mask


def fill_mask(images: Float[Tensor, "b c H W"], mask: Bool[Tensor, "H W"]) -> Float[Tensor, "b c H W"]:
    """Fill the masked pixels with the mean colour of unmasked pixels nearby, whatever was there before."""
    weight = rearrange((~mask).float(), "h w -> 1 1 h w")
    result, side = images * weight, 3
    if mask.all():
        return result
    missing = rearrange(mask, "h w -> 1 1 h w")
    while missing.any():
        near = functional.avg_pool2d(weight, side, 1, side // 2, divisor_override=1)
        colours = functional.avg_pool2d(images * weight, side, 1, side // 2, divisor_override=1)
        result = torch.where(missing & (near > 0.5), colours / near.clamp(min=1), result)
        missing, side = missing & (near <= 0.5), 2 * side + 1
    return result


@torch.no_grad()
def receptive_field(compressor: Compressor, layout: Layout) -> tuple[int, ...]:
    """Measure the encoder's receptive field: its radius in codes, for each grid.

    In images decoded from random codes, the pixels under one code of the finest grid are replaced, and the
    images are encoded again. A distance counts if most codes at that distance change.
    """
    check_positions(layout, "sample whole images")
    generator = torch.Generator().manual_seed(0)
    values = layout.random(TRIALS, generator)
    device = next(compressor.parameters()).device
    images = compressor.decode(values.to(device), layout).clamp(-1, 1)
    rows, columns = layout.grids[-1]
    cell = torch.zeros(rows, columns, dtype=torch.bool)
    cell[rows // 2, columns // 2] = True
    pixels = cells_to_pixels(cell, layout.image_size)
    changed_images = torch.where(pixels.to(device), images.roll(1, 0), images)
    before, after = (compressor.encode(each) for each in (images, changed_images))
    radii = []
    for grid, moved in zip(layout.grids, layout.changed(before, after), strict=True):
        changed = moved.float().mean(dim=0).cpu()
        center, radius = pixels_to_cells(pixels, grid), 0
        for distance in range(1, max(grid)):
            ring = dilate(center, distance) & ~dilate(center, distance - 1)
            if ring.any() and changed[ring].mean() > THRESHOLD:
                radius = distance
        radii.append(radius)
    return tuple(radii)


def encode_known(
    compressor: Compressor,
    images: Float[Tensor, "b c H W"],
    mask: Bool[Tensor, "H W"],
    grow: tuple[int, ...],
) -> Known:
    """Encode images, and keep the codes or latents outside a mask.

    Args:
        compressor: the compressor.
        images: the images.
        mask: True for pixels that are sampled anew.
        grow: codes by which the mask grows in each grid, such as `receptive_field`.
    """
    height, width = mask.shape
    layout = compressor.layout(height, width)
    check_positions(layout, "sample whole images")
    values = compressor.encode(fill_mask(images, mask))
    kept = [
        ~dilate(pixels_to_cells(mask, grid), steps) for grid, steps in zip(layout.grids, grow, strict=True)
    ]
    known_mask = layout.mask(kept, len(images))
    if not known_mask.any() and not mask.all():
        raise UserError(
            f"no codes are left outside the mask: it grows by {max(grow)} codes, the encoder's receptive "
            f"field, and covers all {layout.length}; keep more of the image, or grow less"
        )
    return Known(values, known_mask.to(values.device))


def ignores_known(prior: Prior, known: Known) -> bool:
    """Return True if some known codes come after a sampled one and do not affect it."""
    mask = known.mask.flatten(1)
    if prior.sampling_order is not None:
        mask = mask[:, prior.sampling_order.to(mask.device)]
    first = (~mask).int().argmax(dim=1, keepdim=True)
    later = torch.arange(mask.shape[1], device=mask.device) > first
    return prior.context == "earlier" and bool((mask & later & ~mask.all(dim=1, keepdim=True)).any())


def cells_to_pixels(cells: Bool[Tensor, "h w"], size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """Mark the pixels under marked cells of a grid."""
    (rows, columns), (height, width) = cells.shape, size
    row = torch.arange(height) * rows // height
    column = torch.arange(width) * columns // width
    return cells[row][:, column]


def pixels_to_cells(pixels: Bool[Tensor, "H W"], grid: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """Mark the cells of a grid that contain a marked pixel."""
    batch = rearrange(pixels.float(), "h w -> 1 1 h w")
    return functional.adaptive_max_pool2d(batch, grid)[0, 0] > 0.5


def dilate(cells: Bool[Tensor, "h w"], steps: int) -> Bool[Tensor, "h w"]:
    """Mark all cells within `steps` of a marked cell, diagonals included."""
    batch = rearrange(cells.float(), "h w -> 1 1 h w")
    return functional.max_pool2d(batch, 2 * steps + 1, 1, steps)[0, 0] > 0.5
