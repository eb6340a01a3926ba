"""A first recipe for the user's own models and data."""
