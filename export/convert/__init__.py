"""Checkpoint to ONNX to OpenVINO IR."""
