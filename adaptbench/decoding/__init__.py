"""Adaptive decoding: a character language model whose tokens leave early, speculate, and are attacked; cost a token."""
