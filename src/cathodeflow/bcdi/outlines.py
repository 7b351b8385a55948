"""Parameters of simulated crystals as arrays, from which `rendering` computes their voxels on a device, in batches."""

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bcdi.displacement import REGIMES
from cathodeflow.bcdi.fields import KINDS
from cathodeflow.bcdi.polyhedra import Floats
from cathodeflow.bcdi.simulation import Outline, draw_exposure, draw_properties, generators, outline
from cathodeflow.bcdi.simulation_options import Simulate
from cathodeflow.errors import InputError

Doubles = NDArray[np.float64]


class Outlines(NamedTuple):
    """Parameters of n crystals with up to m facets, in voxels, and of their measurements.

    Attributes
    ----------
    normals : (n, m, 3) float32
        Normals of the facets; 0 after the last facet.
    distances, pulls : (n, m) float32
        Distances of the facets from the centre, infinite after the last; and their displacement along the scattering
        vector.
    rounding, depth, near : (n,) float32
        Radius of the edges, depth of a relaxed surface, distance of the nearest facet.
    kind, regime : (n,) int8
        Numbers in `KINDS` and `REGIMES`.
    vectors : (n, k, 3) float32
    phases : (n, k) float32
        Waves of the smooth displacement.
    through, across : (n, 3) float32
        Point and normal of a plane.
    burgers, line, q : (n, 3) float64
        Of a dislocation.
    centres : (n, k, 3) float32
    levels : (n, k) float32
        Centres and levels of blocks of constant phase.
    drawn : (n,) float64
        Position of the phase range in the interval of its regime, 0 to 1.
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
    centres: Floats
    levels: Floats
    drawn: Doubles
    photons: Doubles
    coherence: Doubles
    background: Doubles


def draw_outlines(numbers: Sequence[int] | NDArray[np.integer], options: Simulate) -> Outlines:
    """Draw the crystals with these numbers: those of `simulation.block`, without their voxels.

    Raises
    ------
    InputError
        As in `simulation.block`, or the options require masked pixels, which only `simulation.block` supports.
    """
    for name in ("hot_fraction", "stop_radius", "gap"):
        if getattr(options, name):
            raise InputError(name, f"{getattr(options, name):g}", "0, as masked pixels are not supported on a device")
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
    parameters = [shape.parameters for shape in shapes]
    return Outlines(
        normals=normals,
        distances=distances,
        pulls=pulls,
        rounding=np.array([shape.polyhedron.rounding for shape in shapes], np.float32),
        depth=np.array([drawn.depth for drawn in parameters], np.float32),
        near=np.array([drawn.near for drawn in parameters], np.float32),
        kind=np.array([KINDS.index(drawn.kind) for drawn in parameters], np.int8),
        regime=np.array(regimes, np.int8),
        vectors=np.stack([drawn.waves.vectors for drawn in parameters]).astype(np.float32),
        phases=np.stack([drawn.waves.phases for drawn in parameters]).astype(np.float32),
        through=np.stack([drawn.through for drawn in parameters]).astype(np.float32),
        across=np.stack([drawn.across for drawn in parameters]).astype(np.float32),
        burgers=np.stack([drawn.burgers for drawn in parameters]),
        line=np.stack([drawn.line for drawn in parameters]),
        q=np.stack([drawn.q for drawn in parameters]),
        centres=np.stack([drawn.centres for drawn in parameters]).astype(np.float32),
        levels=np.stack([drawn.levels for drawn in parameters]).astype(np.float32),
        drawn=np.array(draws),
        photons=np.array([exposure["photons"] for exposure in exposures]),
        coherence=np.array([exposure["coherence"] for exposure in exposures]),
        background=np.array([exposure["background"] for exposure in exposures]),
    )


def outline_stream(
    batches: Iterable[Sequence[int]],
    options: Simulate,
    *,
    pool: ProcessPoolExecutor | None = None,
    ahead: int = 32,
) -> Iterator[Outlines]:
    """Draw batches in order, in other processes and some batches ahead: a crystal takes about 4 ms.

    Parameters
    ----------
    batches : iterable of sequence of int
        Numbers of the crystals of each batch; may be endless.
    options : Simulate
        As in `draw_outlines`.
    pool : ProcessPoolExecutor, optional
        Processes that draw (`drawing_pool`). Default: the calling process.
    ahead : int
        Number of batches that are drawn in advance.
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
    """Start processes for `outline_stream`; use as a context manager, which ends them."""
    # A fork would share the state of threads and of the GPU.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _facets(shapes: Sequence[Outline]) -> tuple[Floats, Floats, Floats]:
    """Join normals, distances and pulls of the facets of all crystals, padded to the same number."""
    most = max(len(shape.polyhedron.normals) for shape in shapes)
    normals = np.zeros((len(shapes), most, 3), np.float32)
    distances = np.full((len(shapes), most), np.inf, np.float32)
    pulls = np.zeros((len(shapes), most), np.float32)
    for row, shape in enumerate(shapes):
        count, q = len(shape.polyhedron.normals), shape.parameters.q
        normals[row, :count], distances[row, :count] = shape.polyhedron.normals, shape.polyhedron.distances
        pulls[row, :count] = shape.polyhedron.normals @ (q / np.linalg.norm(q)) * shape.parameters.moves
    return normals, distances, pulls
