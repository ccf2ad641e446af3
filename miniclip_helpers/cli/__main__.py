"""`python -m miniclip_helpers.cli` is `miniclip`."""

import sys

from . import main

sys.exit(main())
