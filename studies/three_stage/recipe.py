"""The rows of the study: which stages a run has, how long they are and at what learning rates."""

import math
from typing import NamedTuple

CTC, VITERBI, FULL_SUM = "CTC", "Viterbi", "full sum"
CTC_WARMUP, SCRATCH_WARMUP = 40, 80  # steps


class Stage(NamedTuple):
    """A part of a run with one objective and one optimiser.

    kind : "CTC", "Viterbi" or "full sum".
    steps : int.
    peak, last : float, the learning rate after its rise, and at the end.
    warmup : int, the steps of that rise.
    align : what the training set is aligned with before the first step: "CTC", "transducer", or None.
    ctc_weight : float, of CTC beside full sum.
    band : int, the frames before and after its own at which a label may be in the first step of full sum; 0 for all.
    """

    kind: str
    steps: int
    peak: float
    last: float = 0.0
    warmup: int = 10
    align: str | None = None
    ctc_weight: float = 0.0
    band: int = 0


def learning_rate(stage: Stage, step: int) -> float:
    """The rate at a step of a stage: a linear rise to the peak, then a cosine down to the last.

    The rise takes a number of steps and not, as in `digit_strings.adam`, a share of them: early CTC and full-sum
    training do not forgive a short one, however short the stage is.
    """
    warmup = min(stage.warmup, stage.steps)
    if step < warmup:
        return stage.peak * (step + 1) / warmup
    return stage.last + (stage.peak - stage.last) * 0.5 * (
        1 + math.cos(math.pi * (step - warmup) / (stage.steps - warmup))
    )


def band_width(stage: Stage, step: int) -> int:
    """How far a label may be from its frame: twice as far at half the stage, four times at three quarters, so on."""
    return round(stage.band / (1 - step / stage.steps))


class Row(NamedTuple):
    """One way to train: a name, and the stages one after another."""

    name: str
    stages: tuple[Stage, ...]


def three_stages(name: str, steps: list[int], rates: list[float], band: int) -> Row:
    """A CTC model, Viterbi training on its alignment, full-sum training: each begins at the rate where the last ended.

    The encoder goes on from the CTC model's. Of that, training is cut off early and at a high rate: what it has learned
    by heart, Viterbi training cannot unlearn.
    """
    ctc, viterbi, full_sum = steps
    stages = (
        Stage(CTC, ctc, rates[0], rates[1], warmup=CTC_WARMUP),
        Stage(VITERBI, viterbi, rates[1], rates[2], align="CTC"),
        Stage(FULL_SUM, full_sum, rates[2], band=band),
    )
    return Row(name, stages)


def without_viterbi(row: Row, name: str, steps: int) -> Row:
    """A control: the row's CTC model, and then `steps` of full-sum training at once, over all alignments."""
    ctc, _, full_sum = row.stages
    return Row(name, (ctc, full_sum._replace(steps=steps, band=0)))


def study_rows(
    steps: int,
    stage_steps: list[int],
    half_stage_steps: list[int],
    control_steps: int,
    rates: list[float],
    ctc_weight: float,
    band: int,
) -> list[Row]:
    """Full sum from scratch and three stages, at full length and for half its time, and a control of half the length.

    Parameters
    ----------
    steps : int
        Of full-sum training from scratch.
    stage_steps, half_stage_steps : list of int
        Of the CTC model, of Viterbi training, and of full-sum training after it.
    control_steps : int
        Of full-sum training straight after the CTC model of `half_stage_steps`.
    rates : list of float
        Peak learning rates: from scratch, and of these three stages.
    ctc_weight : float
        Of CTC beside full-sum training from scratch.
    band : int
        Of full-sum training after Viterbi training.
    """
    scratch = Stage(FULL_SUM, steps, rates[0], warmup=SCRATCH_WARMUP, ctc_weight=ctc_weight)
    half = three_stages("three stages, half", half_stage_steps, rates[1:], band)
    return [
        Row("full-sum from scratch", (scratch,)),
        three_stages("three stages", stage_steps, rates[1:], band),
        Row("full-sum from scratch, half", (scratch._replace(steps=max(1, steps // 2)),)),
        half,
        without_viterbi(half, "CTC model and full sum, half", control_steps),
    ]
