"""What `shout.yaml` serves: a text in capitals, and on which node that was done."""

import socket


def shout(text: str) -> dict[str, str]:
    """One request's text."""
    return {"text": text.upper(), "node": socket.gethostname()}
