"""INT8 quantization, and the gate that accepts or refuses it."""
