"""The list of wrong lines that `make mutants` tries fits the code as it is."""

from pathlib import Path

from ..faults.mutants import problem, read_mutants


def test_every_mutant_applies_once_and_names_tests_that_exist() -> None:
    mutants = read_mutants()
    assert [found for mutant in mutants if (found := problem(mutant))] == []
    assert len({mutant[:3] for mutant in mutants}) == len(mutants) >= 100


def test_a_mutant_that_no_longer_applies_is_told(tmp_path: Path) -> None:
    mutant = read_mutants()[0]
    path = tmp_path / mutant.file
    assert (problem(mutant, tmp_path) or "").endswith("no such file")
    path.parent.mkdir()
    for times in (0, 2, 1):
        path.write_text(f"{mutant.old}\n" * times)
        told = problem(mutant, tmp_path)
        assert told is None if times == 1 else f"stands there {times} times, expected once" in str(told)
    assert "not changed" in str(problem(mutant._replace(new=mutant.old), tmp_path))
    assert "no test" in str(problem(mutant._replace(tests=("tests/unit/test_fit.py::test_nothing",)), tmp_path))
    assert "no test" in str(problem(mutant._replace(tests=()), tmp_path))
