"""`python -m tutored` is the command `tutored`."""

import sys

from tutored.cli import main

sys.exit(main())
