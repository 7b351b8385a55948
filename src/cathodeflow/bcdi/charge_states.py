"""Simulated scans of one particle in several states of charge: another lattice spacing, and another strain."""

import numpy as np

from cathodeflow.bcdi.geometry import Geometry, q_vector, reciprocal_basis
from cathodeflow.bcdi.simulation_options import SimulateScan


def in_state(options: SimulateScan, state_of_charge: float, geometry: Geometry) -> tuple[SimulateScan, float]:
    """Return the options of a simulated scan in a state of charge, and the range of its phase [rad].

    The lattice spacing changes linearly with the charge, which moves the peak along the scattering vector. The strain
    is inhomogeneous in the middle of the charge and relaxes at both ends: the range of the phase is a parabola.

    Parameters
    ----------
    options : SimulateScan
    state_of_charge : float
        0 (discharged) to 1 (charged).
    geometry : Geometry
        Of the scan; its rocking step is replaced by that of the options.
    """
    change = options.charge.lattice_change * state_of_charge
    geometry = geometry._replace(rocking_step_deg=options.rocking_step_deg)
    basis = reciprocal_basis(geometry)
    # |Q| = 2 pi / d.
    q = (q_vector(geometry) + np.asarray(options.offset) @ basis) / (1 + change)
    offset = tuple(float(shift) for shift in (q - q_vector(geometry)) @ np.linalg.inv(basis))
    ends, middle = options.charge.phase_ranges
    phase_range = ends + (middle - ends) * 4 * state_of_charge * (1 - state_of_charge)
    return options.model_copy(update={"offset": offset}), phase_range
