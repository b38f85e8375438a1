"""Imported by the fork server only: what every worker needs, loaded once, before they are forked.

Pillow imports its readers at the first image. Left to the workers, that would slow down the first
image of each, and count against the time that image may take.
"""

import torch.utils.data  # noqa: F401 - imported to be there
from PIL import Image

import blip2cli.images.load_image  # noqa: F401 - the same

Image.init()
