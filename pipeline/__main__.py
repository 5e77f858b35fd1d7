"""`python -m pipeline` is `nst`."""

import sys

from pipeline.cli.main import main

sys.exit(main())
