"""Metrics WITH truth. Methods never import this: truth cannot reach them."""
