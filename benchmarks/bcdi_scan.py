"""A measured scan as the workflow phased it, and by cohere-core with the beamline's recipe on the same prepared volume.

    snakemake --cores all --directory FOLDER --configfile config/bcdi-34idc.yaml
    python benchmarks/bcdi_scan.py FOLDER/results/bcdi/S0054 [starts] [threads]

The recipe of 34-ID-C: 3*(20*ER+180*HIO)+20*ER, beta 0.9, shrink-wrap in every iteration (sigma 1, threshold 0.1), first
support half of each axis. Errors are compared at one size of support, as `bcdi.py` does, on all pixels measured, those
that were held out of ours included. Takes minutes for each start of the peer.
"""

import sys
import time
from pathlib import Path

import torch
from bcdi import ENGINE, HOW, cohere, report
from torch import Tensor

from cathodeflow.bcdi.ambiguities import align
from cathodeflow.io.phasing import read_pattern, read_starts
from cathodeflow.learning import limited_threads


def main() -> None:
    folder = Path(sys.argv[1])
    starts, threads = (int(value) for value in (*sys.argv[2:], *("5", "2")[len(sys.argv) - 2 :]))
    measured = read_pattern(folder / "prepared.h5")
    # What was not measured is 0 in the peer's data, which has no mask; it does not count in the errors of either.
    amplitude, valid = torch.from_numpy(measured.amplitude), torch.from_numpy(measured.mask)
    ours = torch.from_numpy(read_starts(folder / "phase/objects.h5").objects)
    found: dict[str, list[Tensor]] = {"ours": list(ours[:starts])}
    print(f"{folder.name}, {' x '.join(map(str, amplitude.shape))} voxels, {starts} starts each")
    if ENGINE:
        found["cohere-core"] = []
        with limited_threads(threads):
            for seed in range(starts):
                begun = time.perf_counter()
                found["cohere-core"].append(cohere(amplitude, seed, shrink=(1, 1)))
                passed = time.perf_counter() - begun
                print(f"  cohere-core, start {seed + 1}: {passed:.0f} s on {threads} threads", flush=True)
    else:
        print(f"  {HOW}")
    report(found, amplitude, valid=valid)
    for name, objects in found.items():
        if len(objects) > 1:
            alike = align(torch.stack(objects[1:]), objects[0])[1]
            print(f"  {name:12} correlation of the other starts with the first {alike.min():.3f} to {alike.max():.3f}")


if __name__ == "__main__":
    main()
