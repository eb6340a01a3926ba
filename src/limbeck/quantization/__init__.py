"""Networks in int8: fake quantisation that trains, files of whole numbers, and onnxruntime that runs them."""
