"""The only floor that opens or writes images, weights, checkpoints and tables.

Everything is written beside its place and then renamed, so that a killed run leaves no half file. Nothing is pickled: weights
are safetensors, everything else is NIfTI, JSON, TSV, CSV or Parquet.
"""

from anomri.files.images import SPACING_MM, read_image, read_mask, read_scan, stem, write_image
from anomri.files.opening import NIFTI, reading, replacing, sha256
from anomri.files.tables import plain, read_json, read_table, write_json, write_rows, write_table, write_text
from anomri.files.tensors import read_array, read_tensors, write_tensors

__all__ = [
    "NIFTI",
    "SPACING_MM",
    "plain",
    "read_array",
    "read_image",
    "read_json",
    "read_mask",
    "read_scan",
    "read_table",
    "read_tensors",
    "reading",
    "replacing",
    "sha256",
    "stem",
    "write_image",
    "write_json",
    "write_rows",
    "write_table",
    "write_tensors",
    "write_text",
]
