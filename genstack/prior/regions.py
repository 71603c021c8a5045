"""Regions of a grid whose codes are sampled in parallel (PAR, Wang et al. 2024, arXiv:2412.15119).

The first codes of the regions are sampled one after the other. Each further step samples the next code of
every region. Codes of a step are independent given the codes of earlier steps, so the likelihood stays exact.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from genstack.errors import UserError
from genstack.layout import CodeLayout


@dataclass(frozen=True, eq=False)
class RegionOrder:
    """Order of sampling, and the code that is read to predict each code.

    Each code follows the previous code of its region; the first code of a region follows the first code of
    the previous region. The paper has learned tokens where this reads first codes a second time.

    Args:
        order: indices of the codes in the order of sampling.
        inputs: index of the code that each code but the first follows, in the order of sampling.
        steps: step that samples each code, in the order of sampling.
        bounds: number of codes before each step, and of all codes.
    """

    order: Int[Tensor, " n"]
    inputs: Int[Tensor, " m"]
    steps: Int[Tensor, " n"]
    bounds: list[int]


def region_order(layout: CodeLayout, regions: tuple[int, int]) -> RegionOrder:
    """Return the order of sampling; with one region, the order of the flat sequence.

    Args:
        layout: layout of the codes.
        regions: rows and columns of regions.
    """
    codes = region_codes(layout, regions)
    count, length = len(codes), layout.length
    return RegionOrder(
        torch.cat([codes[:, 0], rearrange(codes[:, 1:], "region n -> (n region)")]),
        torch.cat([codes[:-1, 0], rearrange(codes[:, :-1], "region n -> (n region)")]),
        torch.cat([torch.arange(count), torch.arange(length - count) // count + count]),
        [*range(count), *range(count, length + 1, count)],
    )


def region_codes(layout: CodeLayout, regions: tuple[int, int]) -> Int[Tensor, "region n"]:
    """Indices of the codes of each region, in raster order."""
    index = torch.arange(layout.length)
    if regions == (1, 1):
        return rearrange(index, "n -> 1 n")
    (height, width), (rows, columns) = layout.grids[-1], regions
    if len(layout.grids) > 1 or min(regions) < 1 or height % rows or width % columns:
        grids = ", ".join(f"{height}x{width}" for height, width in layout.grids)
        raise UserError(
            f"regions {rows},{columns} must divide one grid of codes, got {grids}; use other regions, or the "
            f"prior Autoregressive with regions 1,1"
        )
    return rearrange(
        index,
        "(row h column w depth) -> (row column) (h w depth)",
        row=rows,
        column=columns,
        h=height // rows,
        depth=layout.depth,
    )
