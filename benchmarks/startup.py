"""Start of the command line: `cathodeflow --help` against an empty Python process and an import of torch.

python benchmarks/startup.py [--rounds 9]
"""

import argparse
import subprocess
import sys
import time

CASES = {
    "python, nothing": ["-c", "pass"],
    "cathodeflow --help": ["-m", "cathodeflow", "--help"],
    "cathodeflow bragg fit --help": ["-m", "cathodeflow", "bragg", "fit", "--help"],
    "peer: python, import torch": ["-c", "import torch"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, arguments in CASES.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times[name].append(time.perf_counter() - begin)
    for name, values in times.items():
        print(f"{name:32}{sorted(values)[rounds // 2]:8.2f} s (median of {rounds})")


if __name__ == "__main__":
    main()
