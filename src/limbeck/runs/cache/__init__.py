"""limbeck's cache: what it holds, and what of it running processes use."""
