"""``python -m steersman.app.cli`` is `steer`."""

from steersman.app.cli import main

main()
