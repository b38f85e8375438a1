"""Where a model runs and how: device, precision, batch size, threads."""
