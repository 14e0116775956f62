"""What Steersman on a real Ray cluster is held against: faults under load, and plain Ray beside it.

The clusters are those of the tests (`tests.ray.cluster`), on this machine, in the environment that
`make test-ray` makes. Never in here: what is not on a real cluster.
"""
