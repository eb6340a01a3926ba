"""What a training computes on: devices, processes, precision, torch.compile."""
