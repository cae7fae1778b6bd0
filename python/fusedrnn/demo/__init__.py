"""The demo: a character-level language model trained with this package's layers.

``python -m fusedrnn demo`` runs it. The model is `fusedrnn.models.CharModel`; the loop shows how
little a training needs.

===============  ====================================================================
``text``         corpus, vocabulary, split into training and validation, batches
``optim``        the learning rate
``train``        the loop: truncated back-propagation through time, progress, Ctrl-C
``generate``     sampling from a trained model
``checkpoint``   one file that holds everything needed to go on
``files``        what may stand at the paths of the command line
``cli``          the command line
===============  ====================================================================
"""
