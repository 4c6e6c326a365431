"""Tensor to tensor on RAS arrays with a spacing in mm: masks, frequencies, pasted lesions. Randomness is a `torch.Generator`."""
