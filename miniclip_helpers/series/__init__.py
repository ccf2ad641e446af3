"""The series of notebooks: running it, checking its results, keeping its badges in step with the repository's address."""

from .badges import rewrite_badges
from .doctor import examine
from .figures import check_figures, draw_figures
from .results import load_profiles, result
from .running import PROFILES, notebook_names, run

__all__ = ["PROFILES", "check_figures", "draw_figures", "examine", "load_profiles", "notebook_names", "result", "rewrite_badges", "run"]
