"""What runs again after a change: here, and in a plain Snakemake workflow of the same jobs.

python benchmarks/rerun_table.py [FOLDER] writes benchmarks/RERUN_TABLE.txt. Both workflows are run to their end on the
same raw files (benchmarks/reduced.py); then each change is made to a copy, and `snakemake -n` says what it would run.
The plain workflow has the same jobs with the same files between them, as many people write them: `script:` rules,
folders of raw data as inputs, options as parameters, functions in a module, no digests, Snakemake's own defaults.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from reduced import CONFIG, ROOT, copy_checkout, prepare, snakemake

TECHNIQUES = ("bragg", "sem", "fibsem", "bcdi")
#: Of each technique: a raw file, another one like it to add, and an option that is not at its default then.
RAW = {
    "bragg": ("raw/second/frame_00003.tif", "raw/second/frame_00099.tif"),
    "sem": ("raw/additives/additive_001.jpg", "raw/additives/additive_099.jpg"),
    "fibsem": ("raw/new/slices/slice_0003.tif", "raw/new/slices/slice_0099.tif"),
    "bcdi": ("raw/particle/frames/frame_00003.tif", "raw/particle/frames/frame_00099.tif"),
}
OPTIONS = {
    "bragg": "  fit: {model: gaussian}",
    "sem": "  test: {bins: 10}",
    "fibsem": "  metrics: {tolerance_px: 3.0}",
    "bcdi": "  strain: {erosion: 2}",
}
#: Of each technique: a module with a function that a stage in the middle uses.
CODE = {
    "bragg": "bragg/profiles.py",
    "sem": "sem/calibration.py",
    "fibsem": "fibsem/evaluation.py",
    "bcdi": "bcdi/strain_fields.py",
}
#: Folders of raw data that the rules read; ours have the contents as a parameter, not as inputs.
READ = {rule: "raw/{sample}" for rule in (
    "bragg_frames", "sem_index", "sem_predict", "fibsem_volume", "fibsem_predict", "fibsem_predict_figures",
    "bcdi_prepare", "bcdi_strain",
)} | {rule: "raw/cathodes" for rule in ("sem_crops", "sem_audit", "sem_explain")}  # fmt: skip
SCRIPT = """\
# {rule}
from pathlib import Path
from shared.{technique} import work

for path in snakemake.output:
    work(path, snakemake.input, snakemake.params)
"""
SHARED = """\
from pathlib import Path


def work(path, inputs, params):
    if path.endswith(".zarr"):
        Path(path).mkdir(parents=True, exist_ok=True)
        path += "/chunk"
    Path(path).write_text(str(params))
"""


def jobs(text: str) -> Counter[str]:
    """Count the planned jobs of each technique, by the names of their rules."""
    table = re.search(r"^Job stats:\njob\s+count\n[- ]+\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    found: Counter[str] = Counter()
    for line in table.group(1).splitlines() if table else ():
        rule, count = line.split()
        if rule.split("_")[0] in TECHNIQUES:
            found[rule.split("_")[0]] += int(count)
    return found


def plain_workflow(folder: Path, summary: str) -> None:
    """Write the plain workflow: the jobs of which `snakemake --detailed-summary` of ours tells the files."""
    rules, outputs = [], []
    (folder / "shared").mkdir()
    (folder / "scripts").mkdir()
    (folder / "envs").mkdir()
    (folder / "envs/plain.yaml").write_text("dependencies: [python=3.11]\n")
    for technique in TECHNIQUES:
        (folder / f"shared/{technique}.py").write_text(SHARED)
    made_by: dict[tuple[str, str, str], list[str]] = {}
    lines = [line.split("\t") for line in summary.splitlines() if line.count("\t") == 7]
    for path, _, rule, log, inputs, *_ in lines:
        if rule.split("_")[0] in TECHNIQUES:
            made_by.setdefault((rule, log, inputs), []).append(path)
    for number, ((rule, _, inputs), made) in enumerate(made_by.items()):
        technique, _, stage = rule.partition("_")
        needed = {re.sub(r"\.manifest\.json$", "", path) for path in inputs.split(",") if path}
        needed |= {READ[rule].format(sample=made[0].split("/")[2])} if rule in READ else set()
        kept = [path for path in made if not path.endswith(".manifest.json")]
        outputs += kept
        (folder / f"scripts/{rule}.py").write_text(SCRIPT.format(rule=rule, technique=technique))
        shown = [f'directory("{path}")' if path.endswith(".zarr") else f'"{path}"' for path in kept]
        rules.append(
            f"rule {rule}_{number}:\n    input: {', '.join(repr(path) for path in sorted(needed))}\n"
            f"    output: {', '.join(shown)}\n    params: config[{technique!r}].get({stage!r})\n"
            f'    conda: "envs/plain.yaml"\n    script: "scripts/{rule}.py"\n'
        )
    head = f'configfile: "config.yaml"\n\nrule all:\n    input: {", ".join(repr(path) for path in outputs)}\n\n'
    (folder / "Snakefile").write_text(head + "\n".join(rules))
    (folder / "config.yaml").write_text(CONFIG)


def touch(folder: Path, code: Path) -> None:
    """Give all raw files another time."""
    for path in folder.rglob("raw/**/*"):
        if path.is_file():
            path.touch()


def one_byte(folder: Path, code: Path) -> None:
    """Change one byte of one raw file of each technique."""
    for path, _ in RAW.values():
        content = bytearray((folder / path).read_bytes())
        content[-1] ^= 1
        (folder / path).write_bytes(bytes(content))


def older_byte(folder: Path, code: Path) -> None:
    """Put a file with another byte and an older time in place of a raw file of each technique, as `cp -p` does."""
    one_byte(folder, code)
    for path, _ in RAW.values():
        os.utime(folder / path, (1e9, 1e9))


def moved(folder: Path, code: Path) -> None:
    """Move the raw data, and say so in the sheets; the plain workflow says it in its rules."""
    (folder / "raw").rename(folder / "beamtime")
    for path in (*folder.glob("*.tsv"), *folder.glob("Snakefile")):
        path.write_text(re.sub(r"(?<![\w/])raw/", "beamtime/", path.read_text()))


def added_file(folder: Path, code: Path) -> None:
    """Add a raw file to each technique."""
    for path, new in RAW.values():
        (folder / new).write_bytes((folder / path).read_bytes())


def option(folder: Path, code: Path) -> None:
    """Set an option of each technique."""
    text = (folder / "config.yaml").read_text()
    for technique, line in OPTIONS.items():
        text = re.sub(rf"^{technique}:\n", f"{technique}:\n{line}\n", text, flags=re.MULTILINE)
    (folder / "config.yaml").write_text(text)


def edit(path: Path, pattern: str, new: str) -> None:
    """Replace the first place in a file that matches."""
    text, count = re.subn(pattern, new, path.read_text(), count=1, flags=re.MULTILINE)
    assert count, path
    path.write_text(text)


def function(folder: Path, code: Path) -> None:
    """Add a statement to a function that a stage of each technique uses."""
    for technique, module in CODE.items():
        shared = folder / f"shared/{technique}.py"
        path = shared if shared.exists() else code / "src/cathodeflow" / module
        edit(path, r"^(def \w+\([^\n]*:\n)", r"\1    edited = True\n")


def comments(folder: Path, code: Path) -> None:
    """Add a comment to every file of code."""
    files = folder.glob("s*/*.py") if (folder / "shared").exists() else (code / "src").rglob("*.py")
    for path in files:
        path.write_text(path.read_text() + "\n# A comment.\n")


def environment(folder: Path, code: Path) -> None:
    """Add a package to the environment of the rules."""
    path = folder / "envs/plain.yaml" if (folder / "shared").exists() else code / "envs/cathodeflow.yaml"
    path.write_text(path.read_text().replace("dependencies: [", "dependencies: [tqdm, ") + "\n# more\n")


CHANGES: dict[str, Callable[[Path, Path], None]] = {
    "nothing": lambda folder, code: None,
    "all raw files touched": touch,
    "a byte of a raw file": one_byte,
    "the same, with an older time": older_byte,
    "all raw files moved": moved,
    "a raw file added": added_file,
    "an option": option,
    "a function that a stage uses": function,
    "a comment in every file of code": comments,
    "the file of the environment": environment,
}


def measure(base: Path, checkout: Path, snakefile: str, scratch: Path) -> dict[str, Counter[str]]:
    """Make each change in a copy of a finished project, and count what a dry run plans."""
    found = {}
    for name, change in CHANGES.items():
        subprocess.run(["rm", "-rf", scratch], check=True)
        scratch.mkdir()
        subprocess.run(["cp", "-a", base, scratch / "project"], check=True)
        subprocess.run(["cp", "-a", checkout, scratch / "code"], check=True)
        change(scratch / "project", scratch / "code")
        found[name] = jobs(
            snakemake(scratch / "project", "-n", "--cores", "1", checkout=scratch / "code", snakefile=snakefile)
        )
        print(name, dict(found[name]), flush=True)
    return found


def main() -> None:
    """Run both workflows, change them, and print the table."""
    work = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="rerun"))
    ours, plain, checkout = work / "ours", work / "plain", work / "checkout"
    if not (work / "ran").exists():
        copy_checkout(checkout)
        prepare(ours)
        begun = time.monotonic()
        snakemake(ours, "--cores", "2", checkout=checkout)
        print(f"ours ran in {time.monotonic() - begun:.0f} s", flush=True)
        plain.mkdir()
        subprocess.run(["cp", "-a", ours / "raw", plain / "raw"], check=True)
        plain_workflow(plain, snakemake(ours, "--detailed-summary", checkout=checkout))
        snakemake(plain, "--cores", "2", snakefile="Snakefile")
        (work / "ran").touch()
    total = jobs(snakemake(ours, "-n", "--forceall", "--cores", "1", checkout=checkout))
    results = measure(ours, checkout, "", work / "scratch"), measure(plain, checkout, "Snakefile", work / "scratch")
    lines = ["jobs that run again, of the jobs of the technique: here / in a plain workflow", ""]
    lines += [f"{'change':<34}" + "".join(f"{name + f' ({total[name]})':>16}" for name in TECHNIQUES)]
    for change in CHANGES:
        cells = (f"{results[0][change][name]} / {results[1][change][name]}" for name in TECHNIQUES)
        lines.append(f"{change:<34}" + "".join(f"{cell:>16}" for cell in cells))
    text = "\n".join(lines) + "\n"
    (ROOT / "benchmarks/RERUN_TABLE.txt").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
