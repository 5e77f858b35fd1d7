"""`python -m pipeline` does what the command `nst` does."""

import sys

from pipeline.cli.main import main

sys.exit(main())
