"""`python -m pipeline` is `nst`."""

import sys

from pipeline.cli import main

sys.exit(main())
