"""What runs beside a workload and keeps serving while the control plane is down.

Never in here: the journal, a decider, the fold, a specification; the data plane acts on the last good
files or configuration it was handed and knows nothing of why.
"""
