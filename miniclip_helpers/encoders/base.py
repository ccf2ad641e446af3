"""What every tower is: a module that prepares raw inputs itself, and knows the width and the identity of what it emits."""

import importlib.util
import pathlib

import torch
from torch import nn

from .. import runtime
from ..errors import ChecksumError, ModelError


def weights_fingerprint(module):
    """A name for the weights of a module as they are now: a digest over its state's names and bytes."""
    parts = []
    for name, value in module.state_dict().items():
        value = value.detach().cpu().contiguous()
        parts += [name, str(value.dtype), str(tuple(value.shape)), value.reshape(-1).view(torch.uint8).numpy().tobytes()]
    return runtime.digest(*parts)


def wheel_file(package, relative, sha256):
    """The file `relative` inside an installed package, its sha256 verified. Nothing is loaded before it is known to be the right one."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModelError(f"the package {package.replace('_', '-')} is missing; install miniclip-helpers again, it brings the weights")
    path = pathlib.Path(spec.submodule_search_locations[0]) / relative
    if not path.is_file():
        raise ModelError(f"{package} holds no file {relative}; install the version that pyproject.toml names")
    found = runtime.sha256(path)
    if found != sha256:
        raise ChecksumError(f"{path.name} of {package} has sha256 {found}, expected {sha256}; the file is damaged or of another version: "
                            f"install {package.replace('_', '-')} again")
    return path


class Tower(nn.Module):
    """An image or a text tower.

    name: its key in the tables. width: features per input. options: what rebuilds it, plain JSON. pretrained: whether its weights
    come from somewhere. Subclasses set `width`, and write `prepare` (raw inputs to a batch) and `forward` (batch to (B, width)).
    """

    name, pretrained = "tower", False

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def prepare(self, inputs):
        """Raw inputs (list of PIL or of str) to what `forward` takes."""
        raise NotImplementedError

    @property
    def fingerprint(self):
        """Which function this tower is: changes whenever its weights or its preparation do. Keys the feature cache."""
        return runtime.digest(self.name, sorted(self.options.items()), weights_fingerprint(self))

    def encode(self, inputs):
        """Raw inputs to (B, width), without gradients, in evaluation mode."""
        self.eval()
        with torch.inference_mode():
            return self(self.prepare(list(inputs))).float().clone()


class PinnedTower(Tower):
    """A tower whose weights are a file with a known sha256, read when first used: naming one costs nothing."""

    pretrained, sha256, definition = True, "", "1"

    def build(self):
        """The module with its weights."""
        raise NotImplementedError

    @property
    def net(self):
        """The module itself, built and loaded at first use, frozen until `unlock`."""
        if "_net" not in self._modules:
            self._net = self.build().eval().requires_grad_(False)
        return self._net

    def unlock(self):
        """Make the weights trainable."""
        self.net.requires_grad_(True)
        return self

    @property
    def locked(self):
        """Whether the weights are still the pinned ones."""
        return "_net" not in self._modules or not any(p.requires_grad for p in self._net.parameters())

    @property
    def fingerprint(self):
        state = self.sha256 if self.locked else weights_fingerprint(self.net)
        return runtime.digest(self.name, self.definition, sorted(self.options.items()), state)

    def train(self, mode=True):
        """Locked towers stay in evaluation mode: batch statistics are weights too."""
        super().train(mode)
        if self.locked and "_net" in self._modules:
            self._net.eval()
        return self
