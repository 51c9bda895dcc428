"""``python -m eat`` is the ``eat`` command."""

import sys

from eat.cli import main

sys.exit(main())
