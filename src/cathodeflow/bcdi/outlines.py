"""Simulated crystals without their voxels, as arrays: what `rendering` needs to make them on a device, in batches."""

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bcdi.crystals import Floats
from cathodeflow.bcdi.displacement import REGIMES
from cathodeflow.bcdi.fields import KINDS
from cathodeflow.bcdi.options import Simulate
from cathodeflow.bcdi.simulation import Outline, draw_exposure, draw_properties, generators, outline
from cathodeflow.errors import InputError

Doubles = NDArray[np.float64]


class Outlines(NamedTuple):
    """Crystals n with up to m facets, in voxels, and how each is measured.

    Attributes
    ----------
    normals : (n, m, 3) float32
        Of the facets; 0 beyond the last.
    distances, pulls : (n, m) float32
        Of the facets from the centre, infinite beyond the last; and how far each moves along the scattering vector.
    rounding, depth, near : (n,) float32
        Radius of the edges, depth of a relaxed surface, distance of the nearest facet.
    kind, regime : (n,) int8
        Numbers in `KINDS` and `REGIMES`.
    vectors : (n, k, 3) float32
    phases : (n, k) float32
        Of the waves of the smooth displacement.
    through, across : (n, 3) float32
        Point and normal of a plane.
    burgers, line, q : (n, 3) float64
        Of a dislocation.
    drawn : (n,) float64
        From 0 to 1: where in its range the phase range lies.
    photons, coherence, background : (n,) float64
        Of `diffraction.expected_intensity`.
    """

    normals: Floats
    distances: Floats
    pulls: Floats
    rounding: Floats
    depth: Floats
    near: Floats
    kind: NDArray[np.int8]
    regime: NDArray[np.int8]
    vectors: Floats
    phases: Floats
    through: Floats
    across: Floats
    burgers: Doubles
    line: Doubles
    q: Doubles
    drawn: Doubles
    photons: Doubles
    coherence: Doubles
    background: Doubles


def draw_outlines(numbers: Sequence[int] | NDArray[np.integer], options: Simulate) -> Outlines:
    """Draw the crystals with these numbers: those of `simulation.block`, before their voxels.

    Raises
    ------
    InputError
        As of `simulation.block`, or the options ask for masked pixels, which only `simulation.block` has.
    """
    for name in ("hot_fraction", "stop_radius", "gap"):
        if getattr(options, name):
            raise InputError(name, f"{getattr(options, name):g}", "0, as no pixel is masked on a device")
    if not len(numbers):
        raise InputError("numbers", "none", "numbers of crystals")
    shapes, regimes, draws, exposures = [], [], [], []
    for number in numbers:
        rng, noise = generators(options.seed or 0, number)
        regime, properties = draw_properties(rng, options)
        shapes.append(outline(rng, **properties))
        regimes.append(list(REGIMES).index(regime))
        draws.append(rng.random())
        exposures.append(draw_exposure(noise, options))
    normals, distances, pulls = _facets(shapes)
    parameters = [one.parameters for one in shapes]
    return Outlines(
        normals=normals,
        distances=distances,
        pulls=pulls,
        rounding=np.array([one.polyhedron.rounding for one in shapes], np.float32),
        depth=np.array([one.depth for one in parameters], np.float32),
        near=np.array([one.near for one in parameters], np.float32),
        kind=np.array([KINDS.index(one.kind) for one in parameters], np.int8),
        regime=np.array(regimes, np.int8),
        vectors=np.stack([one.waves.vectors for one in parameters]).astype(np.float32),
        phases=np.stack([one.waves.phases for one in parameters]).astype(np.float32),
        through=np.stack([one.through for one in parameters]).astype(np.float32),
        across=np.stack([one.across for one in parameters]).astype(np.float32),
        burgers=np.stack([one.burgers for one in parameters]),
        line=np.stack([one.line for one in parameters]),
        q=np.stack([one.q for one in parameters]),
        drawn=np.array(draws),
        photons=np.array([one["photons"] for one in exposures]),
        coherence=np.array([one["coherence"] for one in exposures]),
        background=np.array([one["background"] for one in exposures]),
    )


def outline_stream(
    batches: Iterable[Sequence[int]],
    options: Simulate,
    *,
    pool: ProcessPoolExecutor | None = None,
    ahead: int = 32,
) -> Iterator[Outlines]:
    """Draw batch after batch, in order, in other processes and some batches ahead: a crystal takes about 4 ms.

    Parameters
    ----------
    batches : iterable of sequence of int
        Numbers of the crystals of each batch; may be endless.
    options : Simulate
        Of `draw_outlines`.
    pool : ProcessPoolExecutor, optional
        Processes that draw (`drawing_pool`); default: this one.
    ahead : int
        Batches that are drawn before they are asked for.
    """
    if pool is None:
        for numbers in batches:
            yield draw_outlines(numbers, options)
        return
    pending: deque[Future[Outlines]] = deque()
    try:
        for numbers in batches:
            pending.append(pool.submit(draw_outlines, numbers, options))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def drawing_pool(workers: int) -> ProcessPoolExecutor:
    """Make processes for `outline_stream`; a context that ends them."""
    # A fork would share the state of threads and of the card.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _facets(shapes: Sequence[Outline]) -> tuple[Floats, Floats, Floats]:
    """Join normals, distances and pulls of all crystals' facets, filled up to the same number."""
    most = max(len(one.polyhedron.normals) for one in shapes)
    normals = np.zeros((len(shapes), most, 3), np.float32)
    distances = np.full((len(shapes), most), np.inf, np.float32)
    pulls = np.zeros((len(shapes), most), np.float32)
    for row, one in enumerate(shapes):
        count, q = len(one.polyhedron.normals), one.parameters.q
        normals[row, :count], distances[row, :count] = one.polyhedron.normals, one.polyhedron.distances
        pulls[row, :count] = one.polyhedron.normals @ (q / np.linalg.norm(q)) * one.parameters.moves
    return normals, distances, pulls
