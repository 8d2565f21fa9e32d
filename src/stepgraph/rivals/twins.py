"""Each network of `stepgraph.applications` written once more, in PyTorch.

They share nothing with stepgraph but the names of layers. Data is NHWC outside, as in stepgraph,
and NCHW inside, as PyTorch has it. Only what is measured or tested against PyTorch imports this.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stepgraph.applications import APPLICATIONS, mobilenet_v2, resnet50


class KerasBatchNorm(nn.BatchNorm2d):
    """PyTorch's normalisation with Keras's moving variance.

    PyTorch moves it by the sample variance, with n - 1; Keras by the population variance. `exact`
    computes that one beside; where speed is measured PyTorch does as it likes.
    """

    def __init__(self, channels: int, momentum: float, exact: bool) -> None:
        super().__init__(channels, eps=1e-3, momentum=1 - momentum)
        self.exact = exact

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.exact):
            return super().forward(x)
        with torch.no_grad():
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        return functional.batch_norm(
            x, None, None, self.weight, self.bias, training=True, eps=self.eps
        )


class Positions(nn.Module):
    """A learnt row per token."""

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(tokens, dim))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


class Attention(nn.Module):
    """Self-attention by its formula."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.parts = nn.ModuleDict(
            {name: nn.Linear(dim, dim) for name in ("query", "key", "value", "attention_output")}
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v = (
            self.parts[name](x).reshape(batch, tokens, self.heads, -1).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.parts["attention_output"](y.transpose(1, 2).reshape(batch, tokens, dim))


class Twin(nn.Module):
    """A network; subclasses make `parts`, keyed by the layers' names, and `logits`.

    Attributes:
        parts: everything with weights.
        exact: see `KerasBatchNorm`.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, exact: bool = True) -> None:
        super().__init__()
        self.exact = exact
        self.parts = nn.ModuleDict()
        self.make(shape, classes)

    def make(self, shape: tuple[int, int, int], classes: int) -> None:
        raise NotImplementedError

    def logits(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Pictures ``(batch, height, width, channels)`` to logits."""
        return self.logits(x.permute(0, 3, 1, 2))

    # -- pieces --------------------------------------------------------------------------------

    def conv(
        self, name: str, inputs: int, filters: int, kernel: int, bias: bool = False, groups: int = 1
    ) -> None:
        self.parts[name] = nn.Conv2d(inputs, filters, kernel, bias=bias, groups=groups)

    def conv_norm(
        self,
        name: str,
        inputs: int,
        filters: int,
        kernel: int,
        momentum: float = 0.99,
        groups: int = 1,
    ) -> None:
        self.conv(f"{name}_conv", inputs, filters, kernel, groups=groups)
        self.parts[f"{name}_norm"] = KerasBatchNorm(filters, momentum, self.exact)

    def run_conv(self, x: Tensor, name: str, stride: int = 1, same: bool = False) -> Tensor:
        part = self.parts[name]
        kernel = part.kernel_size[0]
        padding = 0
        if same:
            pads = [same_padding(size, kernel, stride) for size in x.shape[2:]]
            if len({*pads[0], *pads[1]}) == 1:
                padding = pads[0][0]
            else:
                x = functional.pad(x, (*pads[1], *pads[0]))
        if part.groups > 1 and x.dtype == torch.float64:
            # PyTorch needs a minute for these in double precision.
            return depthwise(functional.pad(x, (padding,) * 4), part.weight, stride)
        return functional.conv2d(x, part.weight, part.bias, stride, padding, 1, part.groups)

    def run(self, x: Tensor, name: str, stride: int = 1, same: bool = False) -> Tensor:
        """Convolution and normalisation."""
        return self.parts[f"{name}_norm"](self.run_conv(x, f"{name}_conv", stride, same))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "same": the odd row or column of zeros comes last."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def depthwise(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """Each channel by its own kernel ``(channels, 1, height, width)``, tap by tap."""
    height, width = kernel.shape[2:]
    down, across = ((x.shape[2] - height) // stride + 1, (x.shape[3] - width) // stride + 1)
    total = None
    for i in range(height):
        for j in range(width):
            rows = slice(i, i + (down - 1) * stride + 1, stride)
            columns = slice(j, j + (across - 1) * stride + 1, stride)
            part = x[:, :, rows, columns] * kernel[:, :, i, j].reshape(1, -1, 1, 1)
            total = part if total is None else total + part
    return total


class ResNet50(Twin):
    stem = 64

    def make(self, shape: tuple[int, int, int], classes: int) -> None:
        self.conv_norm("stem", shape[2], self.stem, 7)
        channels = self.stem
        for stage, (inner, outer, blocks, _) in enumerate(resnet50.STAGES, 1):
            for block in range(1, blocks + 1):
                name = f"stage{stage}_{block}"
                self.conv_norm(f"{name}_reduce", channels, inner, 1)
                self.conv_norm(f"{name}_middle", inner, inner, 3)
                self.conv_norm(f"{name}_expand", inner, outer, 1)
                if block == 1:
                    self.conv_norm(f"{name}_shortcut", channels, outer, 1)
                channels = outer
        self.parts["classifier"] = nn.Linear(channels, classes)

    def logits(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.run(x, "stem", 2).relu(), 3, 2)
        for stage, (_, _, blocks, first) in enumerate(resnet50.STAGES, 1):
            for block in range(1, blocks + 1):
                name, stride = f"stage{stage}_{block}", first if block == 1 else 1
                y = self.run(x, f"{name}_reduce", stride).relu()
                y = self.run(y, f"{name}_middle", same=True).relu()
                y = self.run(y, f"{name}_expand")
                x = (y + (self.run(x, f"{name}_shortcut", stride) if block == 1 else x)).relu()
        # "same" pooling does not count its padding; at size 1 it is the identity.
        x = functional.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
        return self.parts["classifier"](x.permute(0, 2, 3, 1).flatten(1))


class ResNet18(Twin):
    def make(self, shape: tuple[int, int, int], classes: int) -> None:
        self.conv_norm("stem", shape[2], 64, 3)
        channels = 64
        for stage in range(4):
            for block in range(2):
                name, filters = f"stage{stage + 1}_{block + 1}", 64 << stage
                self.conv_norm(f"{name}_first", channels, filters, 3)
                self.conv_norm(f"{name}_second", filters, filters, 3)
                if stage and not block:
                    self.conv_norm(f"{name}_shortcut", channels, filters, 1)
                channels = filters
        self.parts["classifier"] = nn.Linear(channels, classes)

    def logits(self, x: Tensor) -> Tensor:
        x = self.run(x, "stem", same=True).relu()
        for stage in range(4):
            for block in range(2):
                name, halves = f"stage{stage + 1}_{block + 1}", bool(stage and not block)
                y = self.run(x, f"{name}_first", 2 if halves else 1, same=True).relu()
                y = self.run(y, f"{name}_second", same=True)
                x = (y + (self.run(x, f"{name}_shortcut", 2, same=True) if halves else x)).relu()
        return self.parts["classifier"](x.mean((2, 3)))


class MobileNetV2(Twin):
    def make(self, shape: tuple[int, int, int], classes: int) -> None:
        self.plan: list[tuple[str, bool, int, bool]] = []
        self.conv_norm("stem", shape[2], 32, 3, 0.999)
        channels = 32
        for stage, (expansion, filters, blocks, first) in enumerate(mobilenet_v2.BLOCKS, 1):
            for block in range(1, blocks + 1):
                name, wide = f"stage{stage}_{block}", channels * expansion
                if expansion > 1:
                    self.conv_norm(f"{name}_expand", channels, wide, 1, 0.999)
                self.conv_norm(f"{name}_depthwise", wide, wide, 3, 0.999, groups=wide)
                self.conv_norm(f"{name}_project", wide, filters, 1, 0.999)
                stride = first if block == 1 else 1
                adds = stride == 1 and channels == filters
                self.plan.append((name, expansion > 1, stride, adds))
                channels = filters
        self.conv_norm("head", channels, 1280, 1, 0.999)
        self.parts["classifier"] = nn.Linear(1280, classes)

    def logits(self, x: Tensor) -> Tensor:
        relu6 = functional.relu6
        x = relu6(self.run(x, "stem", same=True))
        for name, expands, stride, adds in self.plan:
            y = relu6(self.run(x, f"{name}_expand")) if expands else x
            y = relu6(self.run(y, f"{name}_depthwise", stride, same=True))
            y = self.run(y, f"{name}_project")
            x = x + y if adds else y
        return self.parts["classifier"](relu6(self.run(x, "head")).mean((2, 3)))


class ViT(Twin):
    patch, dim, depth, heads, mlp_dim = 4, 128, 6, 4, 256

    def make(self, shape: tuple[int, int, int], classes: int) -> None:
        dim = self.dim
        tokens = (shape[0] // self.patch) * (shape[1] // self.patch)
        self.conv("patches", shape[2], dim, self.patch, bias=True)
        self.parts["positions"] = Positions(tokens, dim)
        for block in range(1, self.depth + 1):
            self.parts[f"block{block}_norm1"] = nn.LayerNorm(dim, eps=1e-6)
            self.parts[f"block{block}_attention"] = Attention(dim, self.heads)
            self.parts[f"block{block}_norm2"] = nn.LayerNorm(dim, eps=1e-6)
            self.parts[f"block{block}_mlp1"] = nn.Linear(dim, self.mlp_dim)
            self.parts[f"block{block}_mlp2"] = nn.Linear(self.mlp_dim, dim)
        self.parts["norm"] = nn.LayerNorm(dim, eps=1e-6)
        self.parts["classifier"] = nn.Linear(dim, classes)

    def logits(self, x: Tensor) -> Tensor:
        parts = self.parts
        x = self.run_conv(x, "patches", self.patch).flatten(2).transpose(1, 2)
        x = parts["positions"](x)
        for block in range(1, self.depth + 1):
            name = f"block{block}"
            x = x + parts[f"{name}_attention"](parts[f"{name}_norm1"](x))
            y = functional.gelu(parts[f"{name}_mlp1"](parts[f"{name}_norm2"](x)))
            x = x + parts[f"{name}_mlp2"](y)
        return parts["classifier"](parts["norm"](x).mean(1))


class MLP(Twin):
    def make(self, shape: tuple[int, int, int], classes: int) -> None:
        self.parts["dense1"] = nn.Linear(math.prod(shape), 512)
        self.parts["dense2"] = nn.Linear(512, 512)
        self.parts["classifier"] = nn.Linear(512, classes)

    def logits(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1).flatten(1)
        return self.parts["classifier"](self.parts["dense2"](self.parts["dense1"](x).relu()).relu())


class LeNet5(Twin):
    def make(self, shape: tuple[int, int, int], classes: int) -> None:
        self.small = min(shape[:2]) < 32
        self.conv("conv1", shape[2], 6, 5, bias=True)
        self.conv("conv2", 6, 16, 5, bias=True)
        self.parts["dense1"] = nn.Linear(400, 120)
        self.parts["dense2"] = nn.Linear(120, 84)
        self.parts["classifier"] = nn.Linear(84, classes)

    def logits(self, x: Tensor) -> Tensor:
        x = functional.avg_pool2d(self.run_conv(x, "conv1", same=self.small).tanh(), 2)
        x = functional.avg_pool2d(self.run_conv(x, "conv2").tanh(), 2)
        x = self.parts["dense1"](x.permute(0, 2, 3, 1).flatten(1)).tanh()
        return self.parts["classifier"](self.parts["dense2"](x).tanh())


class CNN(Twin):
    def make(self, shape: tuple[int, int, int], classes: int) -> None:
        self.conv("conv1", shape[2], 32, 3, bias=True)
        self.conv("conv2", 32, 64, 3, bias=True)
        height, width = (((size - 2) // 2 - 2) // 2 for size in shape[:2])
        self.parts["classifier"] = nn.Linear(64 * height * width, classes)

    def logits(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.run_conv(x, "conv1").relu(), 2)
        x = functional.max_pool2d(self.run_conv(x, "conv2").relu(), 2)
        return self.parts["classifier"](x.permute(0, 2, 3, 1).flatten(1))


TWINS: dict[str, type[Twin]] = {
    "resnet50": ResNet50,
    "resnet18": ResNet18,
    "mobilenet_v2": MobileNetV2,
    "vit": ViT,
    "mlp": MLP,
    "lenet5": LeNet5,
    "cnn": CNN,
}
assert list(TWINS) == list(APPLICATIONS)
