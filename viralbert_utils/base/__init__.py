"""What every room stands on: files, errors, devices, the hub, texts and tokens."""
