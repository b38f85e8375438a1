"""Captions for a folder as a careful user writes it: a DataLoader, and batches through generate.

``python batched.py FOLDER MODEL OUT BATCH WORKERS``.
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import Blip2ForConditionalGeneration, Blip2Processor


class Files(Dataset):
    """The files of a folder, decoded."""

    def __init__(self, folder):
        self.files = sorted(Path(folder).iterdir())

    def __len__(self):
        """How many there are."""
        return len(self.files)

    def __getitem__(self, number):
        """Name and picture."""
        file = self.files[number]
        return file.name, Image.open(file).convert("RGB")


def collate(items):
    """Names and pixels of a batch."""
    names, images = zip(*items, strict=True)
    return names, processor(images=list(images), return_tensors="pt")["pixel_values"]


folder, path, out, batch, workers = sys.argv[1:]
processor = Blip2Processor.from_pretrained(path)
loader = DataLoader(Files(folder), int(batch), num_workers=int(workers), collate_fn=collate)
model = Blip2ForConditionalGeneration.from_pretrained(path).eval()

with torch.inference_mode(), open(out, "w", encoding="utf-8") as rows:
    for names, pixels in loader:
        ids = model.generate(pixel_values=pixels, max_new_tokens=30)
        texts = processor.batch_decode(ids, skip_special_tokens=True)
        for name, text in zip(names, texts, strict=True):
            rows.write(json.dumps({"file_name": name, "caption": text.strip()}) + "\n")
