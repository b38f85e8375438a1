"""Llama: how InstructBLIP reads an image and an instruction with Vicuna, and writes."""
