"""How much of the lattices of real strings a training step computes."""

from lattice import Topology, joint_transducer_report

from .network import Arrays, forward
from .strings import BLANK, DigitStrings

MAX_STRINGS = 64  # a report on so many takes about as long as one training step


def cell_shares(parameters: Arrays, strings: DigitStrings, *, topology: Topology | str = "rnnt") -> tuple[float, float]:
    """Shares of the lattice cells of the first 64 strings that a training step on them would compute.

    Parameters
    ----------
    parameters : dict of arrays
    strings : DigitStrings
    topology : str or Topology

    Returns
    -------
    occupied : float
        In 0..1: cells that carry probability, so that the backward pass visits them.
    certified : float
        In 0..1: cells that the forward pass computes, because they could not be shown to carry none.
    """
    strings = DigitStrings(*(array[:MAX_STRINGS] for array in strings))
    encoder, predictor, _ = forward(parameters, strings)
    report = joint_transducer_report(
        encoder,
        predictor,
        parameters["output.weight"],
        parameters["output.bias"],
        strings.targets,
        strings.encoder_lengths,
        strings.target_lengths,
        blank=BLANK,
        topology=topology,
    )
    cells = report.cells.sum()
    return float(report.occupied.sum() / cells), float(report.certified.sum() / cells)
