"""Pictures, written as PNG files: where a model looks, how a run went, what it predicts.

``points`` draws the samples of deformable attention over a photograph, ``curves`` a run's metrics
and predictions; ``saving`` writes a figure. Only the command line and experiments import this room.
"""
