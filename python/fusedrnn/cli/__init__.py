"""The commands of `python -m fusedrnn`, on public parts of the package alone.

===================  ====================================================================
``train``            data and settings in, a results folder out; to go on with one
``generate``         text of a character model
``predict``          what other models say to new data
``demo``             a character model of ``train`` in one command
``flow``             gradients on their way back through time
``tasks``            what ``train`` trains: a file each; ``base`` says what a task is
``settings``         one table for options, configuration files and checkpoints
``parser``           settings as options; errors that name the nearest one
``configuration``    settings in TOML
``reading``          text from files, pipes and standard input
``tables``           CSV, TSV and JSON lines
``characters``       vocabulary and streams of a text
``run``              a training under way, and its checkpoint
``loop``             updates, evaluations, checkpoints
``progress``         a bar, or lines
``interrupt``        Ctrl-C as a request
``results``          the results folder
``store``            a checkpoint at a path of the user's choice
``files``            what may stand at such a path
``output``           a model in, a new file or standard output out
``errors``           what ends in a sentence
===================  ====================================================================
"""
