"""How good the deciders are on real recorded history, beside the policies people use today and the bounds.

Never in here: a policy of Steersman's. Baselines and bounds that need a solver are here and nowhere else.
"""
