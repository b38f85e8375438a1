"""Decoding: from images and prompts, as token ids, to generated tokens or scores of choices.

In the order of the data flow:

* ``session``: what a language model offers for the images of one batch (``DecoderSession``): its
  families implement it (``model/families``).
* ``kv_slots``: a request to decode one sequence, and the keys and values of the sequences in
  progress, one slot each (``KVSlots``): prefill, decode step, reorder, compact.
* ``slot_buffers``: the tensors that slots live in.
* ``scheduler``: continuous batching. A sequence that ends frees its slot for the next request.
* ``pipelined_decode``: the same scheduler on a GPU, which reads tokens one step behind.
* ``sampling``: logits processors, drawing, and the generated tokens of a sequence.
* ``beam``: beam search in slots.
* ``scoring``: the likelihood of given choices after a prompt.
* ``cuda_graphs``: decode steps captured once and replayed.
* ``readback``: copies of tokens to the host beside the computation.

``model/generation.py`` chooses among them by the options.
"""
