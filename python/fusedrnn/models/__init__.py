"""Whole models of recurrent layers and of what `fusedrnn.nn` has around them: every wiring.

::

    model = models.CharModel(vocabulary, hidden=256)
    loss, grads, state = model.loss_and_gradients(inputs, targets)
    for index in model.generate(prompt, temperature=0.8, top_p=0.9): ...

    type(model)(**model.config())                        # alike, with other initial weights

========================  ==========================================================
many to many, in step     `CharModel`: what comes next; `Tagger`: a label for each step
many to one               `Classifier`: a class; `Forecaster`: quantiles of what comes
one to many               `Captioner`: symbols from a vector; `Sketcher`: a stroke of a class
many to many              `Seq2Seq`: a sequence from another, with or without attention
========================  ==========================================================

`Training` makes steps, shows how they go, and can be saved and resumed to the bit. Sequences are
[T, B, ...]; `pad` and `Symbols` make such batches of others.
"""

from fusedrnn.models.char import CharModel
from fusedrnn.models.classifier import Classifier, Tagger
from fusedrnn.models.forecaster import Forecaster
from fusedrnn.models.parts import Decoder, Encoder, Model
from fusedrnn.models.seq2seq import Seq2Seq
from fusedrnn.models.sequences import Symbols, beam_search, draw, pad
from fusedrnn.models.training import Training, clipped_step
from fusedrnn.models.writers import Captioner, Sketcher

__all__ = [
    "Captioner",
    "CharModel",
    "Classifier",
    "Decoder",
    "Encoder",
    "Forecaster",
    "Model",
    "Seq2Seq",
    "Sketcher",
    "Symbols",
    "Tagger",
    "Training",
    "beam_search",
    "clipped_step",
    "draw",
    "pad",
]
