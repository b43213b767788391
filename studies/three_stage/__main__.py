"""Train a speech transducer in three stages: along an alignment, over all alignments, for few edits in N-best lists.

    python -m studies.three_stage                    # 1.66 h of read Russian, as characters
    python -m studies.three_stage --units phones     # as phones, alignments checked against their times
    python -m studies.three_stage --smoke            # pseudo-speech, for CI

Training takes 24 minutes of one core with the default settings, and the runs share the cores; decoding and stage 3 come
on top. `--smoke` takes half a minute. It needs `pip install -e ".[speech]"`. The corpus is a Debian package: `apt-get`
downloads it, unless `--data` names the folder where it lies.

The pipeline of Zhou, Michel, Schlueter and Ney (2022): a CTC model gives a peaky alignment; along it the transducer is
trained frame by frame on chunks (Viterbi training), where one row of logits a frame is computed in place of a lattice;
then over all alignments (full sum), at first over those in a band around the alignment; then on N-best lists for the
fewest expected edits, a language model helping to score them. It is held against full-sum training from scratch with
CTC beside it, at about the same and at half the number of CPU seconds: the process time of one thread, which on an idle
machine is the time on the clock. Decoding held-out speech is not counted. Runs are kept one by one, with a checkpoint
each tenth of the way: an interrupted study goes on.

Encoder, predictor and their gradients are plain NumPy (`studies/speech/`).
"""

import argparse
import os
from pathlib import Path

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from studies.speech.corpus import alignable_rows, record_phones, take
from studies.speech.runs import run_all

from .align import align
from .checkpoint import load as load_state
from .memory import measure_memory
from .recipe import Row, study_rows
from .report import write
from .runs import RISK_SETTINGS, load, options_of, path_of, run, run_risk, steps_left
from .stages import Corpus, parameters_path
from .times import alignment_errors

DEFAULTS = {
    "festvox": {"units": "characters", "utterances": 560, "held_out": 60, "stack": 6},
    "generated": {"units": 20, "utterances": 1000, "held_out": 100, "stack": 4},
}
SMOKE = {
    "utterances": 24,
    "held_out": 6,
    "steps": 6,
    "stage_steps": [4, 4, 4],
    "half_stage_steps": [2, 2, 2],
    "control_steps": 3,
    "risk_steps": 2,
    "batch": 4,
    "channels": 16,
    "blocks": 2,
    "joint": 16,
    "chunk": 12,
    "beam": 3,
    "order": 3,
    "seeds": 1,
}


def check_alignments(args: argparse.Namespace, rows: list[Row], corpus: Corpus) -> dict[str, list[dict]]:
    """Held-out sentences aligned by the networks after each stage, against the times of their phones."""
    _, held_out, _ = corpus
    places = alignable_rows(held_out)
    spoken = take(held_out, places)
    sentences = record_phones(data=args.data, cache=Path("out/speech"))[-len(held_out.targets) :]
    phones = [sentences[place] for place in places]
    scratch, stages = rows[0], rows[1]
    networks = {
        "CTC model": (stages, 0, "CTC"),
        "three stages, after Viterbi": (stages, 1, "transducer"),
        "three stages, after full sum": (stages, 2, "transducer"),
        "full-sum from scratch": (scratch, 0, "transducer"),
        "full-sum from scratch, its CTC layer": (scratch, 0, "CTC"),
    }
    errors: dict[str, list[dict]] = {name: [] for name in networks}
    for name, (row, stage, aligner) in networks.items():
        for seed in range(args.seeds):
            parameters = load_state(parameters_path(path_of(args, row.name, seed), stage)).parameters
            errors[name].append(alignment_errors(align(parameters, spoken, aligner), phones, args.stack))
    return errors


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studies.three_stage", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--corpus",
        choices=("festvox", "generated"),
        default="festvox",
        help="speech to train on (default: %(default)s)",
    )
    parser.add_argument("--data", type=Path, help="folder with the Debian packages; by default they are downloaded")
    parser.add_argument(
        "--units",
        type=lambda text: int(text) if text.isdigit() else text,
        help='"characters", "phones", or a number of word pieces (default: by corpus)',
    )
    parser.add_argument("--utterances", type=int, help="to train on (default: by corpus)")
    parser.add_argument("--held-out", type=int, help="utterances to measure on (default: by corpus)")
    parser.add_argument("--stack", type=int, help="frames of 10 ms in one frame of the encoder (default: by corpus)")
    parser.add_argument(
        "--steps", type=int, default=800, help="of full-sum training from scratch (default: %(default)s)"
    )
    parser.add_argument(
        "--stage-steps",
        type=int,
        nargs=3,
        default=[150, 200, 820],
        metavar=("CTC", "VITERBI", "FULL_SUM"),
        help="training steps of the three stages (default: %(default)s)",
    )
    parser.add_argument(
        "--half-stage-steps",
        type=int,
        nargs=3,
        default=[120, 80, 350],
        metavar=("CTC", "VITERBI", "FULL_SUM"),
        help="training steps of the three stages at half the time (default: %(default)s)",
    )
    parser.add_argument(
        "--control-steps",
        type=int,
        default=415,
        help="of full-sum training straight after the half's CTC model (default: %(default)s)",
    )
    parser.add_argument(
        "--rates",
        type=float,
        nargs=4,
        default=[1.4e-2, 1e-2, 7e-3, 7e-3],
        metavar=("SCRATCH", "CTC", "VITERBI", "FULL_SUM"),
        help="peak learning rates (default: %(default)s)",
    )
    parser.add_argument("--batch", type=int, default=8, help="utterances a step (default: %(default)s)")
    parser.add_argument(
        "--chunk",
        type=int,
        default=64,
        help="frames of the encoder in a chunk of Viterbi training (default: %(default)s)",
    )
    parser.add_argument("--label-smoothing", type=float, default=0.2, help="of Viterbi training (default: %(default)s)")
    parser.add_argument(
        "--label-scale",
        type=float,
        default=0.0,
        help="how often the frames of labels count once more (default: %(default)s)",
    )
    parser.add_argument(
        "--focal",
        type=float,
        default=0.0,
        help="exponent of the focal factor of Viterbi training (default: %(default)s)",
    )
    parser.add_argument(
        "--encoder-weight",
        type=float,
        default=0.5,
        help="of the encoder's cross-entropy in Viterbi training (default: %(default)s)",
    )
    parser.add_argument(
        "--ctc-weight", type=float, default=0.2, help="of CTC in full-sum training from scratch (default: %(default)s)"
    )
    parser.add_argument(
        "--band",
        type=int,
        default=5,
        help="frames around the alignment that full sum after Viterbi begins with (default: %(default)s)",
    )
    parser.add_argument("--mask", action="store_true", help="mask stretches of time and of frequency in training")
    parser.add_argument("--beam", type=int, default=8, help="hypotheses in a list (default: %(default)s)")
    parser.add_argument("--order", type=int, default=4, help="of the language model's n-grams (default: %(default)s)")
    parser.add_argument(
        "--lm-scale", type=float, default=0.4, help="weight of the language model's score (default: %(default)s)"
    )
    parser.add_argument(
        "--risk-scale", type=float, default=0.4, help="how sharp the probabilities in a list are (default: %(default)s)"
    )
    parser.add_argument("--risk-steps", type=int, default=70, help="training steps of stage 3 (default: %(default)s)")
    parser.add_argument(
        "--risk-rate", type=float, default=1e-4, help="peak learning rate of stage 3 (default: %(default)s)"
    )
    parser.add_argument(
        "--risk-full-sum",
        type=float,
        default=0.05,
        help="weight of the full-sum loss in stage 3 (default: %(default)s)",
    )
    parser.add_argument("--channels", type=int, default=192, help="width of the encoder (default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=6, help="blocks of the encoder (default: %(default)s)")
    parser.add_argument("--joint", type=int, default=1024, help="H (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each row (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/three_stage"),
        help="folder of runs, tables and pictures (default: %(default)s)",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a run of a minute or two on pseudo-speech that learns next to nothing"
    )
    args = parser.parse_args()
    if args.smoke:
        args.corpus = "generated"
        vars(args).update(SMOKE)
    for name, value in DEFAULTS[args.corpus].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main() -> None:
    args = read_arguments()
    rows = study_rows(
        args.steps, args.stage_steps, args.half_stage_steps, args.control_steps, args.rates, args.ctc_weight, args.band
    )
    corpus = load(args)  # first, so that the processes of the runs find the features on the disk
    runs_of = run_all(
        args, run, rows, sum(steps_left(args, row.name, sum(stage.steps for stage in row.stages)) for row in rows)
    )
    risk = run_all(args, run_risk, rows[3:4], steps_left(args, "stage 3", args.risk_steps))
    with threadpool_limits(1, user_api="blas"):
        parameters = load_state(parameters_path(path_of(args, rows[1].name, 0), 2)).parameters
        memory = measure_memory(parameters, corpus[0], options_of(args, RISK_SETTINGS))
        alignments = check_alignments(args, rows, corpus) if args.units == "phones" else {}
    folder = path_of(args, rows[0].name, 0).parent
    lines = write(folder, args, runs_of, memory, risk, alignments)
    tqdm.write("\n".join(lines))
    tqdm.write(f"table.md, study.json and curve.png are in {folder}")


if __name__ == "__main__":
    main()
