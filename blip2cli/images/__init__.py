"""From the bytes of an image file to the numbers the model takes."""
