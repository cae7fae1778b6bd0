"""The demo: a character-level language model trained with this package's layers.

``python -m fusedrnn demo`` runs it. Every matrix product, forward and backward, is fusedrnn's;
the embedding, the softmax and Adam around it are NumPy, to show how little a training loop needs.

===============  ====================================================================
``text``         corpus, vocabulary, split into training and validation, batches
``model``        embedding, stacked recurrent layer, softmax cross-entropy
``linear``       the output layer, on fusedrnn's kernels too
``optim``        clipping by the global norm, learning rate, Adam
``train``        the loop: truncated back-propagation through time, progress, Ctrl-C
``generate``     sampling from a trained model
``checkpoint``   one ``.npz`` that holds everything needed to go on
``files``        what may stand at the paths of the command line
``cli``          the command line
===============  ====================================================================
"""
