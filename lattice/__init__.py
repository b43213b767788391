"""Memory-efficient training of neural transducers (RNN-T) as plain array functions."""

from .alignments import alignment_bounds, frames_to_ids, ids_to_frames, shift_frames
from .ctc import ctc_alignment, ctc_loss, ctc_loss_and_grad
from .decode import Hypotheses, beam_decode, greedy_decode
from .internal_language_model import internal_language_model_loss_and_grad
from .joint import JointGradients, joint_transducer_loss, joint_transducer_loss_and_grad, joint_transducer_loss_vjp
from .path import joint_path_loss_and_grad, joint_transducer_alignment, transducer_alignment
from .posteriors import Posteriors, joint_transducer_posteriors, transducer_posteriors
from .report import LatticeReport, joint_transducer_report
from .risk import minimum_bayes_risk
from .scores import scores_loss_and_grad
from .topology import Topology
from .transducer import transducer_exit_posterior, transducer_loss, transducer_loss_and_grad
from .warm import warm_up

__all__ = [
    "Hypotheses",
    "JointGradients",
    "LatticeReport",
    "Posteriors",
    "Topology",
    "alignment_bounds",
    "beam_decode",
    "ctc_alignment",
    "ctc_loss",
    "ctc_loss_and_grad",
    "frames_to_ids",
    "greedy_decode",
    "ids_to_frames",
    "internal_language_model_loss_and_grad",
    "joint_path_loss_and_grad",
    "joint_transducer_alignment",
    "joint_transducer_loss",
    "joint_transducer_loss_and_grad",
    "joint_transducer_loss_vjp",
    "joint_transducer_posteriors",
    "joint_transducer_report",
    "minimum_bayes_risk",
    "scores_loss_and_grad",
    "shift_frames",
    "transducer_alignment",
    "transducer_exit_posterior",
    "transducer_loss",
    "transducer_loss_and_grad",
    "transducer_posteriors",
    "warm_up",
]
