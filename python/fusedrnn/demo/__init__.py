"""The demo: a character-level language model trained with this package's layers.

``python -m fusedrnn demo`` runs it. Everything is fusedrnn's, from the embedding to Adam: it shows
how little a training loop needs.

===============  ====================================================================
``text``         corpus, vocabulary, split into training and validation, batches
``model``        embedding, stacked recurrent layer, softmax cross-entropy
``optim``        the learning rate
``train``        the loop: truncated back-propagation through time, progress, Ctrl-C
``generate``     sampling from a trained model
``checkpoint``   one file that holds everything needed to go on
``files``        what may stand at the paths of the command line
``cli``          the command line
===============  ====================================================================
"""
