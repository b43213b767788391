"""Memory-efficient training of neural transducers (RNN-T) as plain array functions."""

from .joint import JointGradients, joint_transducer_loss, joint_transducer_loss_and_grad, joint_transducer_loss_vjp
from .report import LatticeReport, joint_transducer_report
from .transducer import transducer_loss, transducer_loss_and_grad
from .warm import warm_up

__all__ = [
    "JointGradients",
    "LatticeReport",
    "joint_transducer_loss",
    "joint_transducer_loss_and_grad",
    "joint_transducer_loss_vjp",
    "joint_transducer_report",
    "transducer_loss",
    "transducer_loss_and_grad",
    "warm_up",
]
