"""Faults on purpose, put into a fresh Python from outside: the package knows nothing of them.

Python imports a module of this name at its start when the folder is on PYTHONPATH, in the kernel of a notebook too. Where PLANTED_FAULT names one of
`FAULTS`, modules of the package are altered right after they are executed, before anybody has taken a name out of them. PLANTED_STOP=1 ends a
notebook at the first named result that leaves its range, which spares the rest.
"""

import importlib.abc
import importlib.util
import os
import sys

P = "miniclip_helpers."


def shuffled_captions(package):
    """Every dataset that has captions comes with those of other pictures; the words that stand beside them go along."""
    import numpy as np

    load = package.load_dataset

    def shuffled(name_or_path, *args, **options):
        found = load(name_or_path, *args, **options)
        if not isinstance(name_or_path, package.ImageTextDataset) and any(found.captions):
            order = np.random.default_rng(0).permutation(len(found))
            found.captions = [found.captions[row] for row in order]
            if "tags" in found.columns:
                found.columns["tags"] = [found.columns["tags"][row] for row in order]
        return found

    package.load_dataset = shuffled


def frozen_heads_by_steps(loop):
    """The optimiser counts the heads among what it moves, and puts them back after each step."""
    build = loop.build_optimizer

    def frozen(model, config):
        optimizer = build(model, config)
        kept = [(p, p.detach().clone()) for name, p in model.named_parameters() if "_head." in name]

        def put_back(*_):
            for parameter, before in kept:
                parameter.data.copy_(before)

        optimizer.register_step_post_hook(put_back)
        return optimizer

    loop.build_optimizer = frozen


def frozen_heads_in_closed_form(heads):
    """What was fitted does not get into the head: it stays as it was drawn."""
    heads.fill = lambda head, mean, weight: head


def swapped_towers(module):
    """Asked for an answer, and not in training, pictures go through the head of the texts and texts through that of the pictures."""
    towers, images, texts = module.TwoTowers, module.TwoTowers.project_images, module.TwoTowers.project_texts
    towers.project_images = lambda self, features: (images if self.training else texts)(self, features)
    towers.project_texts = lambda self, features: (texts if self.training else images)(self, features)


def swapped_directions(ranking):
    """The two directions of retrieval bear each other's names."""
    right = ranking.ranks
    ranking.ranks = lambda *args, **options: dict(zip(ranking.DIRECTIONS, reversed(right(*args, **options).values())))


def swapped_report(retrieval):
    """What a report calls pictures that ask is captions that ask."""
    right = retrieval.report

    def report(*args, **options):
        found = right(*args, **options)
        one, other = retrieval.metrics.DIRECTIONS
        swapped = {key: found[key] | {one: found[key][other], other: found[key][one]} for key in ("interval95", "chance")}
        return found | {one: found[other], other: found[one]} | swapped

    retrieval.report = report


def wrong_axis(predict):
    """The softmax runs over the pictures, not over the labels."""
    import torch

    predict.class_probabilities = lambda images, classes, scale: (torch.as_tensor(scale) * images @ classes.T).softmax(0)


def no_normalisation(heads):
    """The parts of a head come as long as they are, and so do the vectors of the model."""
    import torch

    def parts(self, features):
        pairs = zip(self.heads, self.options["parts"], strict=True)
        return torch.cat([part["share"] ** 0.5 * head(features[..., slice(*part["columns"])]) for head, part in pairs], dim=-1)

    heads.ConcatHead.forward = parts


def no_normalisation_of_models(module):
    """Pictures and texts are compared by their product, however long they are."""
    module.TwoTowers.project_images = lambda self, features: self.image_head(features)
    module.TwoTowers.project_texts = lambda self, features: self.text_head(features)


def no_temperature(module):
    """The logit scale is 1, whatever was learned."""
    module.TwoTowers.logit_scale = property(lambda self: 0 * self.log_logit_scale + 1)


def wrong_positives(losses):
    """The right caption of each picture is taken to be the next one's."""
    def of_the_next(loss):
        return lambda images, texts, *rest: loss(images, texts.roll(1, 0), *rest)

    for name in ("clip_loss", "multi_positive_loss", "multi_view_loss"):
        setattr(losses, name, of_the_next(getattr(losses, name)))
    losses.LOSSES.update({"clip": losses.clip_loss, "multi-positive": losses.multi_positive_loss, "multi-view": losses.multi_view_loss})


def test_is_train(splits):
    """Every part but the first is drawn from the first."""
    right = splits.split_rows

    def leaky(*args, **options):
        parts = right(*args, **options)
        first, *others = parts
        return {first: parts[first]} | {part: parts[first][: max(1, len(parts[part]))] for part in others}

    splits.split_rows = leaky


def worst_first(store):
    """An index hands out its answers the wrong way round: the farthest come first."""
    import numpy as np

    right = store.Index.search

    def search(self, queries, k=5):
        scores, names = right(self, queries, len(self))
        return np.ascontiguousarray(scores[:, ::-1][:, :k]), [found[::-1][:k] for found in names]

    store.Index.search = search


def blind_tower(module):
    """Every picture has the vector of the first."""
    right = module.TwoTowers.project_images
    module.TwoTowers.project_images = lambda self, features: right(self, features[:1].expand_as(features))


def next_label(ranking):
    """The right answer to a question is taken to stand one column further to the right."""
    import numpy as np

    right = ranking.target_ranks
    ranking.target_ranks = lambda scores, targets, *rest: right(scores, (np.asarray(targets) + 1) % np.shape(scores)[1], *rest)


def next_head(module):
    """Each model is given the weights of its image head in the wrong order of the shared numbers."""
    right = module.TwoTowers.project_images
    module.TwoTowers.project_images = lambda self, features: right(self, features).roll(1, -1)


FAULTS = {
    "shuffled_captions": {P + "datasets": shuffled_captions},
    "frozen_head": {P + "training.loop": frozen_heads_by_steps, P + "training.heads": frozen_heads_in_closed_form},
    "swapped_towers": {P + "model.two_towers": swapped_towers},
    "swapped_directions": {P + "metrics.ranking": swapped_directions},
    "swapped_report": {P + "retrieval": swapped_report},
    "wrong_axis": {P + "zero_shot.predict": wrong_axis},
    "no_normalisation": {P + "model.heads": no_normalisation, P + "model.two_towers": no_normalisation_of_models},
    "no_temperature": {P + "model.two_towers": no_temperature},
    "wrong_positives": {P + "losses": wrong_positives},
    "test_is_train": {P + "datasets.splits": test_is_train},
    "worst_first": {P + "index.store": worst_first},
    "blind_tower": {P + "model.two_towers": blind_tower},
    "next_label": {P + "metrics.ranking": next_label},
    "next_head": {P + "model.two_towers": next_head},
}


def stop_outside(results):
    """End the notebook at the first result outside its range; it is recorded before."""
    right = results.result

    def result(name, value):
        found, span = right(name, value), results.expected_range(name, os.environ.get("MINICLIP_NOTEBOOK"))
        if span and not span[0] <= found <= span[1]:
            raise RuntimeError(f"planted fault caught: {name} = {found:.4g} lies outside {span[0]:g} to {span[1]:g}")
        return found

    results.result = result


class Planter(importlib.abc.MetaPathFinder):
    """Finds as the others do, and lets a module be altered once it is executed."""

    def __init__(self, alterations):
        self.alterations = alterations

    def find_spec(self, name, path=None, target=None):
        if name not in self.alterations:
            return None
        alter = self.alterations.pop(name)  # so that the next line asks the others
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            alter(module)

        spec.loader.exec_module = exec_module
        return spec


if os.environ.get("PLANTED_FAULT"):
    alterations = dict(FAULTS[os.environ["PLANTED_FAULT"]]) if os.environ["PLANTED_FAULT"] != "none" else {}
    if os.environ.get("PLANTED_STOP") == "1":
        alterations[P + "series.results"] = stop_outside
    sys.meta_path.insert(0, Planter(alterations))
