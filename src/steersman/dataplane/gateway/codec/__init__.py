"""Bodies to rows and rows to bodies: plain JSON and the Open Inference Protocol, checked against a signature.

Never in here: numpy, a socket, or a queue.
"""
