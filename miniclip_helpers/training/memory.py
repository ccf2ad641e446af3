"""How much memory a computation holds at its highest, counted tensor by tensor, so that it comes out the same on every machine."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that were made inside and are still alive; views share their memory and count once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            weakref.finalize(storage, self._free, key, size)
            self.now += size
            self.peak = max(self.peak, self.now)

    def _free(self, key, size):
        self.known.discard(key)
        self.now -= size


def peak_bytes(function):
    """Run `function` and return (what it returned, the most bytes of tensors made inside that were alive at once).

    What was there before is not counted, unless an operation hands it on. Scratch space inside a single operation is not seen: the process
    itself may hold a block or so more. Counting costs time, so measure seconds in another run.
    """
    with _Live() as live:
        made = function()
    return made, live.peak


def _empty(*shape):
    return torch.empty(shape, device="meta", requires_grad=True)


def loss_bytes(loss, count, dim=512):
    """The most bytes that forward and backward of `loss(images, texts, scale)` hold at once, for `count` pairs of `dim` numbers.

    Walked through with tensors that have a shape and no content: any size, in no time and no memory.
    """
    images, texts, scale = _empty(count, dim), _empty(count, dim), _empty()
    return peak_bytes(lambda: loss(images, texts, scale).backward())[1]


def vit_b32():
    """What the smallest CLIP costs, walked through without content: {"weights", "flops": forward, per pair, "bytes_per_pair": activations in float32}."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import CLIPConfig, CLIPModel

    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(attn_implementation="eager"))  # the default settings are ViT-B/32's

    def forward(count):
        made = model(input_ids=torch.zeros(count, 77, dtype=torch.long, device="meta"), pixel_values=_empty(count, 3, 224, 224))
        return made.image_embeds.sum() + made.text_embeds.sum()

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward(1)
    few, many = (peak_bytes(lambda: forward(count).backward())[1] for count in (33, 65))  # noqa: B023
    return {"weights": sum(weight.numel() for weight in model.parameters()), "flops": counter.get_total_flops(),
            "bytes_per_pair": (many - few) / 32}  # the difference leaves out the weights' own gradients
