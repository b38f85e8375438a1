"""Captions for a folder as the documentation of transformers has it, one image at a time.

``python docs.py FOLDER MODEL OUT [EVERY]``: one file in EVERY is captioned.
"""

import json
import sys
from pathlib import Path

from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor

folder, path, out, *every = sys.argv[1:]
processor = Blip2Processor.from_pretrained(path)
model = Blip2ForConditionalGeneration.from_pretrained(path)

with open(out, "w", encoding="utf-8") as rows:
    for file in sorted(Path(folder).iterdir())[:: int(every[0]) if every else 1]:
        image = Image.open(file).convert("RGB")
        inputs = processor(images=image, return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=30)
        text = processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
        rows.write(json.dumps({"file_name": file.name, "caption": text}) + "\n")
