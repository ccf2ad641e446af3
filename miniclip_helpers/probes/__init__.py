"""Probes: small exams that are made, not collected. Each is pictures, captions to choose from, the right one, chance, and a control beside it."""

from .core import Probe, interval, judge, run, scoreboard
from .figures import examples_figure, languages_figure, maps_figure, scoreboard_figure
from .languages import NAMES, SCRIPTS, compare_languages, concepts, languages, unknown_share
from .looks import digits, emotions, texture, typographic
from .scenes import colour_binding, counting, depth, negation, position
from .sides import caption_cosine, linear_readout

PROBES = {"counting": counting, "digits": digits, "emotions": emotions, "position": position, "depth": depth, "negation": negation,
          "colour_binding": colour_binding, "texture": texture, "typographic": typographic, "languages": languages}

__all__ = [
    "NAMES", "PROBES", "Probe", "SCRIPTS", "caption_cosine", "colour_binding", "compare_languages", "concepts", "counting", "depth", "digits", "emotions",
    "examples_figure", "interval", "judge", "languages", "languages_figure", "linear_readout", "maps_figure", "negation", "position", "run", "scoreboard",
    "scoreboard_figure", "texture", "typographic", "unknown_share",
]
