"""Models of other frameworks and files, made to behave like modules of PyTorch."""
