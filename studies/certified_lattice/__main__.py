"""Draw which cells of one lattice are computed at all, and what shows that the others may be left alone.

    python -m studies.certified_lattice                   # a lattice as after training
    python -m studies.certified_lattice --half-trained    # a softer one: looser bounds, more cells
    python -m studies.certified_lattice --smoke           # a small one, for CI

It takes seconds, and `pip install -e ".[examples]"` for the picture.

Three panels, frame under frame: alpha + beta over upper bounds that cost two logits a cell; the cells whose logits are
computed, round by round, with the best path; the true posterior, from the logits of all cells, with the outline of the
computed cells. The rounds are run stage by stage with the library's own code (`rounds.py`). docs/certified.md reads the
picture and has the proof.
"""

import argparse
from pathlib import Path

from examples.digit_strings.lattice_picture import lattice_picture_arrays
from lattice import joint_transducer_loss, joint_transducer_report

from .figure import draw_figure
from .problem import BLANK, FLOOR, trained_like
from .rounds import NEVER, rounds_of

TRAINED, HALF_TRAINED = 1.0, 0.45


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studies.certified_lattice", description=__doc__.splitlines()[0])
    parser.add_argument("--half-trained", action="store_true", help="logits of less than half the size")
    parser.add_argument("--seed", type=int, default=0, help="of the random lattice (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("out/certified_lattice.png"), help="file of the picture (default: %(default)s)"
    )
    parser.add_argument("--smoke", action="store_true", help="a lattice of 1,920 cells instead of 8,200")
    return parser.parse_args()


def main() -> None:
    args = read_arguments()
    sizes = {"T": 120, "U": 15, "V": 60, "H": 32} if args.smoke else {"T": 200, "U": 40, "V": 500, "H": 128}
    joint = trained_like(**sizes, sharpness=HALF_TRAINED if args.half_trained else TRAINED, seed=args.seed)

    report = joint_transducer_report(*joint, posterior_floor=FLOOR)
    rounds = rounds_of(joint)
    truth = lattice_picture_arrays(
        joint.encoder[0], joint.predictor[0], joint.weight, joint.bias, joint.targets[0], BLANK
    )
    draw_figure(args.out, rounds, truth.posterior, truth.label_frames, report)

    loss = joint_transducer_loss(*joint, posterior_floor=FLOOR)[0]
    left_out = truth.posterior[rounds.round == NEVER].max(initial=0.0)
    print(
        f"loss {loss:.4f} nats, certificate {report.certificate[0]:.1e}; of {report.cells[0]} cells "
        f"{report.certified[0]} certified in {report.rounds[0]} rounds, {report.occupied[0]} occupied"
    )
    print(f"largest true posterior of a cell never computed {left_out:.1e}, floor {FLOOR:.1e}; picture {args.out}")


if __name__ == "__main__":
    main()
