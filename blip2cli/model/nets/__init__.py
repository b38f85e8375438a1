"""BLIP-2's networks in plain torch, under the names that transformers gives their weights.

transformers' own modules are not used to run a model: importing them takes longer than a small job,
and their layers cannot be fused and packed (see ``layers``). The tests compare every number with
theirs.
"""
