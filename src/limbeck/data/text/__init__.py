"""Texts as data: tokenizers, files, blocks of tokens, and what is shipped with limbeck."""
