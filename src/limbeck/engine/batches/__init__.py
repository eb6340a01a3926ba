"""Whatever a user trains from and validates on, as batches on the device."""
