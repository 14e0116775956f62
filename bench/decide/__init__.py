"""The deciders on recorded traces, beside the policies of others and the bounds."""
