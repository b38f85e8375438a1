"""Decoding: from images and prompts, as token ids, to generated tokens or scores of choices.

In the order of the data flow:

* ``session``: what a language model offers for the images of one batch (``DecoderSession``): its
  families implement it (``model/families``).
* ``requests``: a request to decode one sequence, and the tokens generated for it.
* ``kv_slots``: the keys and values of the sequences in progress, one slot each (``KVSlots``):
  prefill, decode step, reorder, compact.
* ``kv_cache``: keys and values of all layers in few tensors.
* ``slot_buffers``: the tensors that slots live in; ``slot_arena``: one memory that those of every
  shape are views of.
* ``scheduler``: continuous batching. A sequence that ends frees its slot for the next request.
* ``pipelined_decode``: decoding on a GPU, where the host reads tokens one step behind. With
  rules, and where tokens are drawn, ``device_choice`` chooses them there.
* ``logits_rules``, ``sampling``: rules for the scores of the next token, and drawing it.
* ``beam``: beam search, a loop of its own over slots.
* ``scoring``: the likelihood of given choices after a prompt, without slots.
* ``cuda_graphs``: decode steps captured once and replayed; ``cuda_capture``: their capture.
* ``async_copy``: copies of numbers between host and device beside the computation.

``model/generation.py`` chooses among them by the options.
"""
