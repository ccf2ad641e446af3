"""`python -m miniclip_helpers.cli` is `miniclip`."""

from . import entry

entry()
