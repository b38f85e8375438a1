"""The embedded models: what they know, how their pictures are drawn, how they are trained.

``kinds``, ``sprites``, ``backgrounds``, ``scenes`` and ``texts`` make pictures with their captions
and questions; ``build``, ``data``, ``heads`` and ``train`` make a checkpoint out of them;
``evaluate`` measures it. The finished checkpoints lie in ``weights/``.
"""
