"""A model for others: as a file for another runtime, or as a folder that the hub takes.

``graph`` is the model with all that surrounds it, as one network; ``export`` writes it, and checks
what it wrote. ONNX and its runtime are an extra, and imported where they are used.
"""
