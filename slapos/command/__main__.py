"""`python -m slapos.command` is `slapos`."""

import sys

from slapos.command.main import main

sys.exit(main())
