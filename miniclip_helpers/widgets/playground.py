"""Zero-shot labels to play with: a picture, labels, a template, a temperature."""

import warnings

import numpy as np
import torch

from .. import plots, zero_shot
from ..errors import UsageError
from ..images import open_image
from .panel import DPI, Panel, stem, wide


def label_picture(picture, labels, probabilities, shown=8):
    """A picture beside bars of its most likely labels, best on top: PNG bytes. labels: C strings. probabilities: (C,)."""
    (best,) = zero_shot.top_labels(torch.as_tensor(probabilities)[None], labels, shown)
    figure, (left, right) = plots.new_figure(1, 2, height=0.9 + 0.32 * max(4, len(best)), width_ratios=(1, 1.6))
    left.imshow(np.asarray(picture))
    left.set_axis_off()
    right.barh(range(len(best)), [share for _, share in best], color=[plots.PALETTE["orange"]] + [plots.PALETTE["blue"]] * (len(best) - 1))
    for row, (_, share) in enumerate(best):
        right.annotate(f"{share:.1%}", (share, row), xytext=(3, 0), textcoords="offset points", va="center", fontsize=9,
                       bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    right.axvline(1 / len(labels), color=plots.PALETTE["grey"], linestyle="--", linewidth=1.2, label=f"chance, 1 in {len(labels)}")
    right.set_yticks(range(len(best)), [label if len(label) < 32 else f"{label[:30]}…" for label, _ in best])
    right.set(xlim=(0, 1.15), ylim=(max(4, len(best)) - 0.5, -0.5), xlabel="probability")
    right.grid(axis="y", visible=False)
    right.legend(loc="lower right", fontsize=8)
    return plots.quick_png(figure, DPI)


def zero_shot_playground(model, images, labels, template=zero_shot.TEMPLATE, names=None):
    """Name a picture by labels of your own: choose one or upload it, edit labels and template, set the temperature.

    images: list of PIL. labels: list of str. names: what to call the pictures, "picture 1" and so on by default.
    """
    import ipywidgets

    names = [stem(name) for name in names or [f"picture {number + 1}" for number in range(len(images))]]
    start = 1 / float(torch.as_tensor(model.logit_scale).detach())
    controls = {
        "picture": wide(ipywidgets.Dropdown, options=[*((name, row) for row, name in enumerate(names)), ("your own, below", -1)], description="Picture"),
        "upload": ipywidgets.FileUpload(accept="image/*", multiple=False, description="Upload a picture", icon="", layout={"width": "180px"}),
        "labels": wide(ipywidgets.Textarea, value="\n".join(labels), description="Labels", placeholder="one a line", rows=min(8, 1 + len(labels)),
                        continuous_update=False),
        "template": wide(ipywidgets.Text, value=template, description="Template", placeholder="a photo of a {}.", continuous_update=False),
        "temperature": wide(ipywidgets.FloatLogSlider, value=start, min=-3, max=1, step=0.02, description="Temperature", readout_format=".3g",
                             continuous_update=False),
    }

    def look(change):
        controls["picture"].value = -1  # what is brought is looked at

    def chosen():
        if controls["picture"].value >= 0:
            return names[controls["picture"].value], images[controls["picture"].value]
        if not controls["upload"].value:
            raise UsageError("upload a picture of your own first, with the button below")
        file = controls["upload"].value[0]
        return stem(file["name"]), open_image(bytes(file["content"]))

    def draw():
        (name, picture), texts = chosen(), [line.strip() for line in controls["labels"].value.splitlines() if line.strip()]
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            (row,) = zero_shot.classify(model, [picture], texts, controls["template"].value, controls["temperature"].value)
        (best,) = zero_shot.top_labels(row[None], texts, 3)
        notes = "".join(f" ({note.message})" for note in told if issubclass(note.category, UserWarning))
        return label_picture(picture, texts, row), f"{name}: " + ", ".join(f"{label} {share:.1%}" for label, share in best) + notes

    return Panel("zero-shot playground", f"{names[0]} and the most likely of {len(labels)} labels.", controls, draw, before={"upload": look})
