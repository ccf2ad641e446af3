"""Fine-tuning a model that was trained before: the gate, the methods (heads, LP-FT, LoRA, full), and WiSE-FT between before and after."""

from .export import export_model
from .gate import broken_scorer, gate
from .hub import own_copy, save
from .methods import DEFAULTS, METHODS, add_lora, default_config, lora_layers, lora_names, merge_lora
from .run import about_run, fine_tune_run
from .tuning import Diverged, FineTuned, Tuning, fine_tune, steps
from .wise import choose_alpha, interpolate, wise_curve

__all__ = [
    "DEFAULTS", "METHODS", "Diverged", "FineTuned", "Tuning", "about_run", "add_lora", "broken_scorer", "choose_alpha", "default_config", "export_model", "fine_tune",
    "fine_tune_run", "gate", "interpolate", "lora_layers", "lora_names", "merge_lora", "own_copy", "save", "steps", "wise_curve",
]
