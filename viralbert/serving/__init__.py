"""The predictor, its ONNX export, and the HTTP service around them."""
