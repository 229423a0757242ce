"""Models in Hugging Face's layout, read without torch or transformers.

`load_pretrained` decides by the `model_type` of `config.json`. A layout is a module with two
functions: what the shape is, and which tensors make which parameter.
"""

from nar.pretrained.adopt import adopt
from nar.pretrained.layout import LAYOUTS, load_pretrained

__all__ = ["LAYOUTS", "adopt", "load_pretrained"]
