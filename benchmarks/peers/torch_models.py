"""The models in PyTorch, for every peer that is built on it; layers as in lepton-jax, weights as PyTorch draws them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.protocol import Job


def make_model(job: Job) -> nn.Module:
    """The job's model, over standardized pixels [B,F,H,W]."""
    channels = job.train_images.shape[-1]
    match job.model:
        case "keras_cnn":
            return keras_cnn(channels, job.classes)
        case "fedavg_cnn":
            return fedavg_cnn(channels, job.classes)
        case "resnet8":
            return ResNet((1, 1, 1), (16, 32, 64), job, shortcut="conv", bias=True)
        case "resnet20":
            return ResNet((3, 3, 3), (16, 32, 64), job, shortcut="pad")
        case "resnet18":
            return ResNet((2, 2, 2, 2), (64, 128, 256, 512), job, shortcut="conv_norm")
    raise ValueError(f"no PyTorch model for {job.model}")


def keras_cnn(channels: int, classes: int) -> nn.Module:
    """The classic Keras tutorial, for images of 28x28."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, classes)),
    )


def fedavg_cnn(channels: int, classes: int) -> nn.Module:
    """The CNN of McMahan et al. (2017), for images of 28x28."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, classes)),
    )


class ResNet(nn.Module):
    """A residual network for small images (He et al., 2016)."""

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        job: Job,
        *,
        shortcut: str,
        bias: bool = False,
    ) -> None:
        super().__init__()
        channels = job.train_images.shape[-1]
        self.stem = _conv(channels, widths[0], 3, 1, bias)
        self.norm = _norm(job.norm, widths[0])
        blocks, before = [], widths[0]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            for i in range(depth):
                stride = 2 if stage and not i else 1
                blocks.append(Block(before, width, stride, job.norm, shortcut, bias))
                before = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, job.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)), inplace=True)
        return self.head(self.blocks(x).mean((2, 3)))


class Block(nn.Module):
    """Two 3x3 convolutions, added to a shortcut."""

    def __init__(
        self, before: int, width: int, stride: int, norm: str, shortcut: str, bias: bool
    ) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(before, width, 3, stride, bias), _norm(norm, width)
        self.conv2, self.norm2 = _conv(width, width, 3, 1, bias), _norm(norm, width)
        self.stride, self.missing = stride, width - before
        self.shortcut: nn.Module | None = None
        if (stride > 1 or before != width) and shortcut != "pad":
            conv = _conv(before, width, 1, stride, bias)
            after = _norm(norm, width) if shortcut == "conv_norm" else nn.Identity()
            self.shortcut = nn.Sequential(conv, after)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        return functional.relu(self.norm2(self.conv2(y)) + self._skip(x), inplace=True)

    def _skip(self, x: Tensor) -> Tensor:
        if self.shortcut is not None:
            return self.shortcut(x)
        if not self.missing:
            return x
        half = self.missing // 2
        kept = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(kept, (0, 0, 0, 0, half, self.missing - half))


def to_input(images: Tensor, job: Job) -> Tensor:
    """Bytes [B,H,W,F] to standardized floats [B,F,H,W], channels last in memory."""
    mean, std = 255 * torch.tensor(job.mean), 255 * torch.tensor(job.std)
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)


@torch.inference_mode()
def accuracy(model: nn.Module, job: Job) -> float:
    """On the test images."""
    model.eval()
    correct = 0
    for start in range(0, len(job.test_labels), 256):
        rows = slice(start, start + 256)
        x = to_input(torch.from_numpy(job.test_images[rows].copy()), job)
        labels = torch.from_numpy(job.test_labels[rows].copy())
        correct += int((model(x).argmax(1) == labels).sum())
    model.train()
    return correct / len(job.test_labels)


def _conv(before: int, after: int, kernel: int, stride: int, bias: bool) -> nn.Module:
    return nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=bias)


def _norm(norm: str, width: int) -> nn.Module:
    match norm:
        case "batch":
            return nn.BatchNorm2d(width)
        case "group":  # at least 4 channels a group, at most 32 groups
            return nn.GroupNorm(min(32, width // 4), width)
    return nn.Identity()
