"""Pictures and pages: where a model looks, how a run went, what it predicts.

``points`` draws the samples of deformable attention over a photograph, ``curves`` a run's metrics
and predictions; ``saving`` writes a figure. ``gallery`` makes a page of photographs, ``report`` one
of runs, ``page`` a page's folder, and ``assets`` has what its browser runs. Only the command line
and experiments import this room.
"""
