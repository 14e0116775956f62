"""``python -m steersman.dataplane.gateway HOME``."""

import sys

from steersman.dataplane.gateway.main import main

main(sys.argv)
