"""Choice between compiled networks and others, by medians of timed repetitions."""

from contextlib import nullcontext

from genstack.compilation import CompilationChoice, Work

STEPS = Work("step", "steps", "--flag", worthwhile=60.0, warmup=2, compiling=3, timed=3)


def record(choice, *seconds):
    for each in seconds:
        choice.record(each)


def test_medians_are_compared_without_the_first_repetitions(capsys):
    choice = CompilationChoice(STEPS, "auto", 1000, nullcontext)
    record(choice, 90.0, 80.0, 1.0, 9.0)
    assert not choice.active
    record(choice, 1.0)
    assert choice.active and not choice.decided
    record(choice, 300.0, 20.0, 5.0, 0.5, 7.0, 0.9)
    assert choice.active and choice.decided
    said = "compiling: 995 more steps would take 16.6 minutes; --flag false leaves it out\n"
    assert capsys.readouterr().err == said


def test_slower_repetitions_end_it(capsys):
    choice = CompilationChoice(STEPS, "auto", 1000, nullcontext)
    record(choice, *[1.0] * 5, *[300.0] * 3, 1.2, 1.3, 0.9)
    assert choice.decided and choice.used and not choice.active
    assert capsys.readouterr().err.endswith("no longer compiled: a step took 1.20 of its time before\n")


def test_short_work_is_decided_without_compiling(capsys):
    choice = CompilationChoice(STEPS, "auto", 60, nullcontext)
    record(choice, *[1.0] * 20)
    assert choice.decided and not choice.used and capsys.readouterr().err == ""
