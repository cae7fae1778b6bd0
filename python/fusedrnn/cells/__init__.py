"""The cells, one file each: functions forward and backward, their gradients, and layers.

Letters, arrays and what all functions share: `fusedrnn.functional`; layers: `fusedrnn.layers`.
"""
