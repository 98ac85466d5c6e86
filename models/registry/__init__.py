"""Which models there are, which of them serve, and whether each is what its manifest says.

A model version is a folder: `model.onnx`, what else it needs, and its manifest `model.toml` (`manifest`). A registry is
a folder of such folders, NAME/VERSION/, and a `registry.toml` that says which of them are active, which is on trial
with what share of the traffic, and what was active before (`store`). A version never changes; a new one is another
folder. What a graph takes and gives is read from it and compared with what its family needs (`graph`), and a model is
tried once before it serves (`verify`).
"""
