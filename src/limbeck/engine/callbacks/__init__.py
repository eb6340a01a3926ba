"""Hooks into a training, and limbeck's own callbacks."""
