"""A local web page of a model's scores: Gradio's, behind a gate of its own.

``server`` runs it, ``gate`` says what it lets in, ``page`` lays it out, ``photographs`` scores what
was uploaded, ``fragments`` writes what is shown of it. The only room that imports gradio.
"""
