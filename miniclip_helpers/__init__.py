"""MiniCLIP: what the notebooks of the series import once they have built it themselves.

Import the modules by name: ``from miniclip_helpers import losses, metrics``. Nothing heavy is imported here.
"""

__version__ = "0.1.0"
