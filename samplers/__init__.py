"""Vocabularies for sampled softmax: distributions, draws and positives (Lee et al. 2022).

No door is open yet. A vocabulary drawn by other means goes into `lattice.joint_transducer_loss(..., vocabulary=ids)` today.
"""
