"""BLIP-2's networks in torch alone, under the names that transformers gives their weights.

transformers' own modules are not used to run a model: importing them takes longer than a small job,
and their layers cannot be joined and packed (see ``linear``). The tests hold every number against
them.
"""
