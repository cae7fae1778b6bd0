from fusedrnn.models.char import CharModel
from fusedrnn.models.classifier import Classifier, Tagger
from fusedrnn.models.forecaster import Forecaster
from fusedrnn.models.parts import Decoder, Encoder, Model
from fusedrnn.models.seq2seq import Seq2Seq
from fusedrnn.models.sequences import Symbols, beam_search, draw, pad

__all__ = [
    "CharModel",
    "Classifier",
    "Decoder",
    "Encoder",
    "Forecaster",
    "Model",
    "Seq2Seq",
    "Symbols",
    "Tagger",
    "beam_search",
    "draw",
    "pad",
]
