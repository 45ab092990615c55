"""`satpipe export`: models as ONNX or TorchScript files."""
