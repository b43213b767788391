"""The tile loop of every backward pass: rows of the logits' gradient on to encoder, predictor, weight and bias.

What a row holds is not known here: `full_sum` and `path` hand in the function that writes the rows of a tile.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..kernels.hidden_transpose import hidden_transpose
from ..kernels.rows import gather, scatter
from .groups import Group, Segment
from .tiler import Layer, Tile, Tiler


class Outputs(NamedTuple):
    """Gradients under way.

    Those of encoder (B, T, H) and predictor (N, U+1, H) are in their own dtypes, for each of their rows is written
    once. Sums over all cells go into weight (V, H) and bias (V,), in the dtype that is computed in.
    """

    encoder: np.ndarray
    predictor: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


class Rows(NamedTuple):
    """What a function that writes gradient rows is given of a tile of n cells.

    Attributes
    ----------
    logits : (n, S)
        Of the tile, without the bias, in the dtype that is computed in.
    target : (n, S)
        Where their gradient goes. It is the logits themselves, or an array of the dtype that matrix products take.
    part : slice
        The places of the tile's cells in the list of cells.
    tile : Tile
    layer : Layer
    upstream : (examples,)
        `grad_loss` of each example of the group.
    """

    logits: np.ndarray
    target: np.ndarray
    part: slice
    tile: Tile
    layer: Layer
    upstream: np.ndarray


class Pass(NamedTuple):
    """Cells whose logits have a gradient, and who writes it.

    Attributes
    ----------
    first_cell, cells : (examples + 1,) int64 on the host, (n,) int64
        The place of each example's first cell in the list, and the list of cells, ascending.
    write_rows : callable
        Fills `target` of `Rows`, and may overwrite `logits`.
    blanks_alone : bool
        The rows have the blank's entry and no other: the output layer is the blank's row.
    """

    first_cell: np.ndarray
    cells: np.ndarray
    write_rows: Callable[[Rows], None]
    blanks_alone: bool = False


def backward(tiler: Tiler, group: Group, passes: Sequence[Pass], grad_loss, outputs: Outputs):
    """Add to the gradients of weight and bias, and return the gradients of a group's frames and label positions.

    Parameters
    ----------
    tiler : Tiler
    group : Group
    passes : sequence of Pass
        No cell is in two of them.
    grad_loss : (N,)
    outputs : Outputs

    Returns
    -------
    grad_encoder, grad_predictor : (frames, H), (slots, H)
        In the workspace, or in the outputs, in the dtype that is computed in.
    """
    space, dtype, H = tiler.space, tiler.work.dtype, tiler.weight.shape[1]
    if tiler.work.in_place:
        # The rows of the one example lie one behind the other in the outputs.
        n = group.examples[0]
        grad_encoder = outputs.encoder[n, : len(group.encoder_row)]
        grad_predictor = outputs.predictor[n, : len(group.predictor_row)]
    else:
        grad_encoder = space.take((len(group.encoder_row), H), dtype)
        grad_predictor = space.take((len(group.predictor_row), H), dtype)
    # Tiles add to them, and cells that are not listed add nothing.
    grad_encoder.fill(0)
    grad_predictor.fill(0)
    upstream = space.take(len(group.examples), dtype)  # (examples,)
    gather(grad_loss.reshape(-1, 1), group.device_examples, upstream.reshape(-1, 1))
    for own in passes:
        for segment, layer in tiler.blank_layer(group) if own.blanks_alone else tiler.layers(group):
            _pull_segment(tiler, group, segment, layer, own, upstream, (grad_encoder, grad_predictor), outputs)
    return grad_encoder, grad_predictor


def _pull_segment(
    tiler: Tiler, group: Group, segment: Segment, layer: Layer, own: Pass, upstream, grad_inputs, outputs: Outputs
) -> None:
    """The tiles of one segment: rows of their gradient, and what these add to every other gradient."""
    space, dtype, H = tiler.space, tiler.work.dtype, tiler.weight.shape[1]
    with space.borrowed():
        grad_weight, grad_bias = tiler.device.view(outputs.weight), tiler.device.view(outputs.bias)
        if segment.ids is not None:
            # (S, H), (S,) of the segment's own rows, added to those of the whole weight when the segment is done.
            grad_weight, grad_bias = (space.take(like.shape, dtype) for like in (layer.weight, layer.bias))
            grad_weight.fill(0)
            grad_bias.fill(0)
        for part in tiler.tiles(int(own.first_cell[segment.begin]), int(own.first_cell[segment.end])):
            cells = own.cells[part]
            tile = tiler.hidden(group, 0, cells, len(cells))
            if own.blanks_alone:
                # The layer has no row of any label.
                tile.label_id.fill(-1)
            # Made once more, since nobody has kept the logits of the forward pass.
            logits = tiler.logits(tile, layer)
            target = logits if tiler.work.operand == dtype else space.take(logits.shape, tiler.work.operand)
            own.write_rows(Rows(logits, target, part, tile, layer, upstream))
            grad_hidden = space.take((len(cells), H), dtype)
            # Nobody else reads the rows of the target, so the upper halves take their place.
            grad_logits = tiler.operand(target, high=target)
            tiler.product(grad_logits, layer.operand, grad_hidden)
            # The sum over cells is a product with a row of ones, which takes bfloat16 rows too and gives float32.
            ones = tiler.ones[: len(cells)].reshape(1, -1)
            tiler.product(grad_logits.T, tile.operand, grad_weight, add=True)
            tiler.product(ones, grad_logits, grad_bias.reshape(1, -1), add=True)
            # Cells ascend, and are added in this order, whatever the number of threads.
            places = tile.frame, tile.slot, cells, group.device_frames, group.label_base
            own_rows = tile.hidden, grad_hidden, group.dropout
            hidden_transpose(tiler.slopes(group, tile), *own_rows, *places, *grad_inputs)
        if segment.ids is not None:
            # No id stands twice in a vocabulary, so no two rows go to one place.
            scatter(grad_weight, segment.ids, outputs.weight)
            scatter(grad_bias.reshape(-1, 1), segment.ids, outputs.bias.reshape(-1, 1))
