"""Routes through nets of growing size, and answers given by several of them together."""
