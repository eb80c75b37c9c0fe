"""Convolutions of each channel by itself, with gradients that are quick on CPUs too, in any precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

COLUMNS = 3
"""The widest kernel whose gradient oneDNN (3.x) computes channel by channel; of a wider one it makes dense groups of
sixteen channels, so that a kernel of 5 x 5 takes 3 to 7 times as long in one piece, in bfloat16 up to 14 times."""
Pair = tuple[int, int]


class Depthwise(nn.Conv2d):
    """A convolution of each channel by itself. `quicken` makes a network's convolutions such ones."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert not isinstance(self.padding, str)
        return convolve(x, weight, bias, self.stride, self.padding)  # type: ignore[arg-type]


def quicken(network: nn.Module) -> None:
    """Let the gradients of a network's depthwise convolutions be computed as `convolve` does."""
    for each in network.modules():
        alone = type(each) is nn.Conv2d and each.groups == each.in_channels == each.out_channels > 1
        if alone and each.dilation == (1, 1) and each.padding_mode == "zeros" and not isinstance(each.padding, str):
            each.__class__ = Depthwise


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """`F.conv2d` of each channel by itself, x [B, C, H, W], weight [C, 1, h, w], bias [C]."""
    learns = torch.is_grad_enabled() and weight.requires_grad
    if learns and x.is_cpu and not torch.compiler.is_compiling():
        result: Tensor = _Convolve.apply(x, weight, bias, stride, padding)
        return result
    return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.where = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (stride, padding) = ctx.saved_tensors, ctx.where
        x, weight = x.to(gradient.dtype), weight.to(gradient.dtype)  # autocast's, if it is on
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        before = _input_gradient(gradient, x, weight, stride, padding) if for_x else None
        kernel: list[Tensor] = []
        for part in weight.split(COLUMNS, dim=3) if for_weight else ():
            left = padding[1] - sum(each.shape[3] for each in kernel)
            right = (gradient.shape[3] - 1) * stride[1] + part.shape[3] - x.shape[3] - left
            seen = F.pad(x, (left, right))
            kernel.append(_gradients(gradient, seen, part, stride, (padding[0], 0), (False, True, False))[1])
        shift = gradient.sum((0, 2, 3)) if for_bias else None
        return before, torch.cat(kernel, dim=3) if kernel else None, shift, None, None


def _input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Without stride a convolution, which is quicker; with one, bfloat16 takes 15 to 50 times as long as float32."""
    if stride == (1, 1):
        around = [side - 1 - each for side, each in zip(weight.shape[2:], padding, strict=True)]
        return F.conv2d(gradient, weight.flip(2, 3), None, 1, around, groups=len(weight))
    gradient, x, weight = gradient.float(), x.float(), weight.float()
    found: Tensor = _gradients(gradient, x, weight, stride, padding, (True, False, False))[0]
    return found


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, wanted: tuple[bool, bool, bool]
) -> tuple[Any, ...]:
    """Those of input, weight and bias."""
    groups = len(weight)
    found: tuple[Any, ...] = torch.ops.aten.convolution_backward(
        gradient, x, weight, [groups], stride, padding, (1, 1), False, (0, 0), groups, wanted
    )
    return found
