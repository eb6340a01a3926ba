"""What is written while training: checkpoints and students."""
