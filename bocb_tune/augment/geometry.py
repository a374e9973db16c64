"""Operations on the places of pixels, a batch at a time: images are [n, channels, height, width]."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def moved(images: Tensor, shift: Tensor, flip: Tensor, *, mirror: bool) -> Tensor:
    """Flip each image where `flip` [n], then see it through a window `shift` [n, 2] pixels (down, right) away.

    Beyond the border lies the image mirrored about its edge pixels, or with `mirror` False its edge pixels repeated.
    """
    n, channels, height, width = images.shape
    rows = _within(torch.arange(height, device=images.device) + shift[:, :1], height, mirror)
    columns = _within(torch.arange(width, device=images.device) + shift[:, 1:], width, mirror)
    columns = torch.where(flip[:, None], width - 1 - columns, columns)
    planes = torch.arange(n * channels, device=images.device).view(n, channels, 1)
    # Whole rows first: they are copied as blocks, which leaves one slow gather instead of two.
    taken = images.reshape(-1, width).index_select(0, (planes * height + rows[:, None]).flatten())
    return taken.view_as(images).gather(3, columns[:, None, None].expand_as(images))


def cropped(images: Tensor, box: Tensor) -> Tensor:
    """Stretch a box (first row, first column, height, width) [n, 4] of each image to the whole of it, bicubically.

    uint8 images come back as uint8.
    """
    size = torch.tensor(images.shape[2:], device=images.device)
    first, sides = box[:, :2, None], box[:, 2:, None]
    rows, columns = ((torch.arange(side, device=images.device) + 0.5) / side for side in images.shape[2:])
    places = [2 * (first[:, axis] + sides[:, axis] * at) / size[axis] - 1 for axis, at in enumerate((rows, columns))]
    grid = torch.stack(
        [
            places[1][:, None, :].expand(-1, len(rows), -1),
            places[0][:, :, None].expand(-1, -1, len(columns)),
        ],
        3,
    )
    seen = functional.grid_sample(images.float(), grid, "bicubic", "border", align_corners=False)
    return seen.round().clamp(0, 255).to(torch.uint8) if images.dtype == torch.uint8 else seen


def _within(place: Tensor, size: int, mirror: bool) -> Tensor:
    if not mirror:
        return place.clamp(0, size - 1)
    place = place.abs()
    return torch.where(place < size, place, 2 * (size - 1) - place)


def affine(images: Tensor, matrix: Tensor, fill: Tensor) -> Tensor:
    """Map uint8 images so that pixel (x, y) is that at `matrix` [n, 2, 3] times (x, y, 1) before, from the top left
    corner.

    Bilinear, edge pixels repeated; places outside the image become `fill` [channels], as in Pillow's
    `transform(AFFINE, resample=BILINEAR)`.
    """
    height, width = images.shape[2:]
    y, x = (torch.arange(size, device=images.device) + 0.5 for size in (height, width))
    places = torch.stack(
        [x.expand(height, width), y[:, None].expand(height, width), torch.ones_like(x).expand(height, width)]
    )
    before = torch.einsum("nij,jhw->nihw", matrix.float(), places)
    ends = torch.stack([torch.full_like(x[0], width), torch.full_like(x[0], height)])[:, None, None]
    inside = ((before >= 0) & (before < ends)).all(1, keepdim=True)
    grid = (2 * before / ends - 1).movedim(1, 3)
    seen = functional.grid_sample(images.float(), grid, "bilinear", "border", align_corners=False)
    # Rounded down like Pillow's, which counts in doubles: without the nudge, float32 turns a plain 200 into 199.
    return torch.where(inside, seen + 1 / 512, fill[:, None, None]).to(torch.uint8)


def shear_x(factor: Tensor, size: tuple[int, int]) -> Tensor:  # noqa: ARG001
    """Return matrices [n, 2, 3] for `affine`, as all below do; `size` is (height, width)."""
    return _matrix(b=factor)


def shear_y(factor: Tensor, size: tuple[int, int]) -> Tensor:  # noqa: ARG001
    return _matrix(d=factor)


def translate_x(share: Tensor, size: tuple[int, int]) -> Tensor:
    return _matrix(c=share * size[1])


def translate_y(share: Tensor, size: tuple[int, int]) -> Tensor:
    return _matrix(f=share * size[0])


def rotate(degrees: Tensor, size: tuple[int, int]) -> Tensor:
    """Turn counter-clockwise about the centre."""
    height, width = size
    angle = degrees * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    c = width / 2 - cos * (width / 2) + sin * (height / 2)
    f = height / 2 - sin * (width / 2) - cos * (height / 2)
    return _matrix(a=cos, b=-sin, c=c, d=sin, e=cos, f=f)


def _matrix(**entries: Tensor) -> Tensor:
    like = next(iter(entries.values()))
    one, zero = torch.ones_like(like), torch.zeros_like(like)
    unit = {"a": one, "b": zero, "c": zero, "d": zero, "e": one, "f": zero} | entries
    return torch.stack(list(unit.values()), 1).view(-1, 2, 3)
