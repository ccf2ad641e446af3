"""Light unlocking: the last block of EfficientNet-Lite0, or the last layer of MiniLM, learns at a small rate together with heads that start in closed form.

What lies below is computed once: the maps that enter the last block, the word states that enter the last layer.
"""

import copy

import torch
from torch import nn
from tried_ways import closed_heads, model_of, small_towers

from miniclip_helpers import training
from miniclip_helpers.training import sides

SIDES, CHANNELS = (7, 9), 192  # of the maps that enter the last block, one per view
TOTAL, RATE, BATCH, SCALE = 40, 3e-5, 64, 30.0


class LastBlock(nn.Module):
    """The end of EfficientNet-Lite0: (B, the means of two blocks and the maps of both views, in a row) to its (B, 2904) features."""

    def __init__(self):
        super().__init__()
        net = small_towers()[0].net
        self.block, self.conv, self.norm, self.classifier = (copy.deepcopy(part).requires_grad_(True) for part in (net.blocks[6], net.conv_head, net.bn2, net.classifier))

    def train(self, mode=True):
        return super().train(False)  # the running statistics stay: a batch of 64 has no better ones

    def forward(self, rows):
        views, start = [], 0
        for side in SIDES:
            means, maps = rows[:, start : start + 304], rows[:, start + 304 : start + 304 + CHANNELS * side * side]
            start += 304 + CHANNELS * side * side
            x = self.block(maps.reshape(-1, CHANNELS, side, side).contiguous(memory_format=torch.channels_last))
            pooled = self.norm(self.conv(x)).mean((2, 3))
            views.append(torch.cat([means, x.mean((2, 3)), pooled, self.classifier(pooled)], 1))
        return sum(views) / 2


class LastLayer(nn.Module):
    """The end of MiniLM: (B, L, 385) word states and, last, whether a word is one, to its (B, 384) features."""

    def __init__(self):
        super().__init__()
        self.layer = copy.deepcopy(small_towers()[1].net.encoder.layer[-1]).requires_grad_(True)

    def train(self, mode=True):
        return super().train(False)

    def forward(self, rows):
        keep = rows[..., 384:]
        rows, keep = rows[:, : int(keep.sum(1).max())], keep[:, : int(keep.sum(1).max())]
        found = self.layer(rows[..., :384], attention_mask=(1 - keep[:, None, None, :, 0]) * -1e9)
        states = found[0] if isinstance(found, tuple) else found
        return (states * keep).sum(1) / keep.sum(1)


@torch.no_grad()
def below_last_block(photos):
    """(N, numbers): the means of blocks 4 and 5, and the maps after block 5, of both views of each photo."""
    tower, found = small_towers()[0], []
    for start in range(0, len(photos.dataset), 4):
        row = []
        for view in tower.prepare([photos.dataset.image(i) for i in range(start, min(start + 4, len(photos.dataset)))]).values():
            x, means = tower.net.bn1(tower.net.conv_stem(view)), []
            for number, block in enumerate(tower.net.blocks[:6]):
                x = block(x)
                means += [x.mean((2, 3))] * (number >= 4)
            row += [*means, x.flatten(1)]
        found.append(torch.cat(row, 1))
    return torch.cat(found)


@torch.no_grad()
def below_last_layer(photos):
    """(M, L, 385) of all captions."""
    tower, length, found = small_towers()[1], max(small_towers()[1].token_counts(photos.captions)), []
    for start in range(0, len(photos.captions), 64):
        batch = tower.prepare(photos.captions[start : start + 64])
        states = tower.net(**batch, output_hidden_states=True).hidden_states[-2]
        rows = torch.cat([states, batch["attention_mask"][..., None].float()], -1)
        found.append(nn.functional.pad(rows, (0, 0, 0, length - rows.shape[1])))
    return torch.cat(found)


def unlocked(side):
    """The way that lets the end of one tower learn, "image" or "text"."""
    below = {"image": below_last_block, "text": below_last_layer}[side]

    def inputs(part):
        kept = part.photos._keep(("below", side), lambda: below(part.photos))
        return (kept[part.rows], part.texts()) if side == "image" else (part.images(), kept[part.mine])

    def fit(train, seed):
        model = model_of(*closed_heads(train))
        setattr(model, f"{side}_tower", LastBlock() if side == "image" else LastLayer())
        with torch.no_grad():
            model.log_logit_scale.fill_(torch.tensor(SCALE).log())
        batches = training.PairBatches(*inputs(train), train.owner, BATCH)
        config = training.TrainConfig(epochs=max(1, round(TOTAL / len(batches))), learning_rate=RATE, batch_size=BATCH, seed=seed)
        for _ in training.fit(model, batches, config):
            pass
        return lambda part: (lambda images, texts: images @ texts.T)(*sides.embed(model, *inputs(part)))

    return fit
