"""Decoding: from images and prompts, as token ids, to generated tokens or scores of choices.

In the order of the data flow:

* ``session``: what a language model offers for the images of one batch (``DecoderSession``): its
  families implement it (``model/families``).
* ``requests``: a request to decode one sequence, and the tokens generated for it.
* ``kv_slots``: the keys and values of the sequences in progress, one slot each (``KVSlots``):
  prefill, decode step, reorder, compact.
* ``slot_buffers``: the tensors that slots live in; ``slot_arena``: one memory that those of every
  shape are views of.
* ``scheduler``: continuous batching. A sequence that ends frees its slot for the next request.
* ``pipelined_decode``: greedy decoding on a GPU, where the host reads tokens one step behind. With
  logits processors or sampling a GPU uses ``scheduler`` too.
* ``sampling``: logits processors and drawing.
* ``beam``: beam search, a loop of its own over slots.
* ``scoring``: the likelihood of given choices after a prompt, without slots.
* ``cuda_graphs``: decode steps captured once and replayed; ``cuda_capture``: their capture.
* ``async_copy``: copies of tokens to the host beside the computation.

``model/generation.py`` chooses among them by the options.
"""
