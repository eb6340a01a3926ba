"""The `limbeck` command."""
