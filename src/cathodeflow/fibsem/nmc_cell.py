"""Parameters of a cell with NMC 811 and graphite (LG M50), around the properties that are measured.

Electrodes: C.-H. Chen et al., J. Electrochem. Soc. 167, 080534 (2020), doi:10.1149/1945-7111/ab9050; the set `Chen2020`
of PyBaMM has the same values. Electrolyte: A. Nyman et al., Electrochim. Acta 53, 6356 (2008),
doi:10.1016/j.electacta.2008.04.023. Transport efficiencies are porosity ** 1.5, and surfaces 3 active fraction /
radius, as in these models. A reaction rate constant K of BPX is k c_max c_0 ** 0.5 / F of the exchange current density
k (c_e c_s (c_max - c_s)) ** 0.5.
"""

from typing import Any

_REFERENCES = (
    "C.-H. Chen et al., J. Electrochem. Soc. 167, 080534 (2020); A. Nyman et al., Electrochim. Acta 53, 6356 (2008)"
)

#: A BPX file as a mapping.
NMC_CELL: dict[str, Any] = {
    "Header": {
        "BPX": "1.0.0",
        "Title": "Cell with NMC 811 and graphite (LG M50)",
        "References": _REFERENCES,
        "Model": "DFN",
    },
    "Parameterisation": {
        "Cell": {
            "Reference temperature [K]": 298.15,
            "Lower voltage cut-off [V]": 2.5,
            "Upper voltage cut-off [V]": 4.2,
            "Nominal cell capacity [A.h]": 5.0,
            "Electrode area [m2]": 0.1027,
            "External surface area [m2]": 5.31e-3,
            "Volume [m3]": 2.42e-5,
            "Number of electrode pairs connected in parallel to make a cell": 1,
        },
        "Electrolyte": {
            "Cation transference number": 0.2594,
            "Diffusivity [m2.s-1]": "8.794e-11 * (x / 1000) ** 2 - 3.972e-10 * (x / 1000) + 4.862e-10",
            "Conductivity [S.m-1]": "0.1297 * (x / 1000) ** 3 - 2.51 * (x / 1000) ** 1.5 + 3.329 * (x / 1000)",
        },
        "Negative electrode": {
            "Thickness [m]": 85.2e-6,
            "Porosity": 0.25,
            "Transport efficiency": 0.125,
            "Conductivity [S.m-1]": 215.0,
            "Minimum stoichiometry": 0.0264,
            "Maximum stoichiometry": 0.9106,
            "Maximum concentration [mol.m-3]": 33133.0,
            "Particle radius [m]": 5.86e-6,
            "Surface area per unit volume [m-1]": 383959.0,
            "Diffusivity [m2.s-1]": 3.3e-14,
            "Reaction rate constant [mol.m-2.s-1]": 7.037e-6,
            "OCP [V]": (
                "1.9793 * exp(-39.3631 * x) + 0.2482 - 0.0909 * tanh(29.8538 * (x - 0.1234))"
                " - 0.04478 * tanh(14.9159 * (x - 0.2769)) - 0.0205 * tanh(30.4444 * (x - 0.6103))"
            ),
        },
        "Positive electrode": {
            "Thickness [m]": 75.6e-6,
            "Porosity": 0.335,
            "Transport efficiency": 0.1939,
            "Conductivity [S.m-1]": 0.18,
            "Minimum stoichiometry": 0.2638,
            "Maximum stoichiometry": 0.8539,
            "Maximum concentration [mol.m-3]": 63104.0,
            "Particle radius [m]": 5.22e-6,
            "Surface area per unit volume [m-1]": 382184.0,
            "Diffusivity [m2.s-1]": 4.0e-15,
            "Reaction rate constant [mol.m-2.s-1]": 7.073e-5,
            "OCP [V]": (
                "-0.8090 * x + 4.4875 - 0.0428 * tanh(18.5138 * (x - 0.5542))"
                " - 17.7326 * tanh(15.7890 * (x - 0.3117)) + 17.5842 * tanh(15.9308 * (x - 0.3120))"
            ),
        },
        "Separator": {"Thickness [m]": 12.0e-6, "Porosity": 0.47, "Transport efficiency": 0.3222},
    },
    "State": {
        "Initial conditions": {
            "Initial state-of-charge": 1.0,
            "Initial temperature [K]": 298.15,
            "Initial electrolyte concentration [mol.m-3]": 1000.0,
        },
        "Thermal environment": {"Ambient temperature [K]": 298.15},
    },
}
